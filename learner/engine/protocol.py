"""TrainEngine: all that the learner asks of whatever holds the weights. The one adapter is deepspeed_engine.py.

Every method is called by all ranks, in the same order, with the same number of micro-batches: gathering a sharded
parameter and reducing a gradient are collective.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from learner.batch.packing import MicroBatch

Policy = Literal["current", "reference"] | int
"""A number: the teacher at that place of learner.teachers."""


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """What the chunked head says about each response token of a micro-batch; float32 [M], on the engine's device."""

    logp: Tensor
    """Log-prob of the sampled token at the sampling temperature, nats. Carries the gradient in `backward`."""
    entropy: Tensor
    """Of the next-token distribution, nats; no gradient."""
    sum_p2: Tensor
    """Sum over the vocabulary of squared probabilities, in (0, 1]; no gradient."""
    hidden: Tensor | None = None
    """[M, H], last hidden states in the model's dtype, with gradient in `backward`: where the objective needs them."""


LossFunction = Callable[[MicroBatch, TokenStatistics], Tensor]
"""The micro-batch's share of the step's loss: shares sum to the loss over all micro-batches of all ranks."""


@dataclass(frozen=True, slots=True)
class GradientStep:
    """What `TrainEngine.step` did. Without `applied` a gradient was not finite and nothing has changed."""

    grad_norm: float
    """Euclidean norm before clipping, over all parameters and ranks; nan when it was not finite."""
    limit: float
    """The norm that it was cut to where it was longer."""
    applied: bool


@dataclass(frozen=True, slots=True)
class Share:
    """What the gradient g of one micro-batch counts in the two sums of `backward_in_two_sums`."""

    first: float
    """The first sum grows by first x g, the second by second x g."""
    second: float
    baseline: float | None = None
    """Then, unless None: the first sum is less by baseline x the second, and the second begins anew."""


ShareFunction = Callable[[MicroBatch, float], Share]
"""Told a micro-batch and the squared norm of its gradient, over all parameters, on this rank."""


class TrainEngine(Protocol):
    """Current weights, optimizer, and the reference policy, on this rank's device."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def reference_is_current(self) -> bool:
        """No step since the start, or since the reference was made the current policy: both would score the same."""
        ...

    def token_statistics(self, micro_batches: Sequence[MicroBatch], policy: Policy) -> list[TokenStatistics]:
        """Forward only, no gradient, one result for each micro-batch."""
        ...

    def backward(self, micro_batches: Sequence[MicroBatch], loss: LossFunction) -> float:
        """Adds up gradients over micro-batches and ranks; returns this rank's part of the loss."""
        ...

    def backward_in_two_sums(
        self, micro_batches: Sequence[MicroBatch], loss: LossFunction, share: ShareFunction
    ) -> None:
        """As `backward`, but what is added up is the first sum, which a micro-batch's gradient enters by its share.

        Instead of `backward`, once a step; holds two whole gradients a rank. Fillers are run and count nothing. Raises
        InputError where the engine was not made for it (advantage.baseline is another).
        """
        ...

    def step(self, learning_rate: float) -> GradientStep:
        """Clip, step at this learning rate, clear the gradients. Not finite on any rank: no rank changes anything."""
        ...

    def discard_gradients(self) -> None:
        """Forget what `backward` added up; weights and optimizer stay."""
        ...

    def ratchet_reference(self) -> None:
        """reference := current, bit for bit (rounded to bfloat16 where it is kept in it)."""
        ...

    def roll_back_reference(self) -> None:
        """reference := what it was before the last ratchet_reference; once after each.

        Raises InputError where no earlier one is kept (reference.roll_back is not set).
        """
        ...

    def blend_reference(self, decay: float) -> None:
        """reference := decay x reference + (1 - decay) x current; 0 copies, 1 leaves it alone."""
        ...

    def snapshot(self, dtype: torch.dtype) -> list[tuple[str, Tensor]]:
        """Copies of the current weights under their Hugging Face names: everything on rank 0, [] on the others."""
        ...

    def sequence_logp(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probs (nats, temperature 1) of tokens 1.. given those before; one fewer than the tokens."""
        ...

    def save(self, folder: Path) -> None:
        """Weights, optimizer and reference into an existing empty folder; every rank writes its share."""
        ...

    def load(self, folder: Path) -> None:
        """Continue from `save`, exactly. Raises InputError when it was written by another number of ranks."""
        ...

    def export(self, folder: Path) -> None:
        """A Hugging Face folder (config, safetensors, tokenizer) in the engine's dtype, written by rank 0."""
        ...

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        """Elementwise sum, the same on every rank; the argument is left alone."""
        ...

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        """Rank 0's bytes on every rank; the others pass None."""
        ...

    def barrier(self) -> None: ...

    def close(self) -> None:
        """Leave the process group."""
        ...
