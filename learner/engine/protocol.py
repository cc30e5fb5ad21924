"""TrainEngine: everything the learner asks of the object that holds the weights. Its one adapter is deepspeed_engine.py.

Every method is called by all ranks, in the same order, with the same number of micro-batches: gathering a sharded
parameter and reducing a gradient are collective, and wait for the other ranks as `barrier` does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from services.run.checkpoint_files import Damaged

Policy = Literal["current", "reference"] | int
"""An integer is the index of a teacher in learner.teachers."""


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """What a policy says about M response tokens of n sequences; float32 [M], on the engine's device."""

    logp: Tensor
    """Log-prob of the sampled token at the sampling temperature, nats. Carries the gradient in `backward`."""
    entropy: Tensor
    """Entropy of the next-token distribution, nats; a gradient in `backward` only where the objective needs it."""
    residual: Tensor
    """Euclidean norm of onehot(token) - p over the vocabulary, where p is the next-token distribution; no gradient. Its square is
    1 - 2 p_token + sum p^2, without the cancellation for near-certain tokens."""
    hidden: Tensor | None = None
    """float32 [n, H], mean last hidden state of each sequence over its tokens that count; None unless the objective needs it.
    With gradient in `backward` where there is no predictor."""
    predicted: Tensor | None = None
    """float32 [n, H], what the predictor makes of `hidden`; None unless the objective trains one."""


R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)

LossFunction = Callable[[MicroBatch, TokenStatistics], tuple[Tensor, R]]
"""Returns the micro-batch's share of the step's loss, and a record of whatever its caller wants to know afterwards.

Shares sum to the loss over all micro-batches of all ranks. Not called for fillers."""


@dataclass(frozen=True, slots=True)
class Backward(Generic[R]):
    """What a backward returns; the gradient itself stays in the engine."""

    loss: float
    """This rank's part."""
    records: list[R]
    """What the loss returned, for each of this rank's micro-batches that is not a filler."""


class GradientSum(Protocol[R_contra]):
    """Adds up the gradients of one rank's micro-batches by a rule of its own."""

    def add(self, record: R_contra, gradients: list[Tensor], scale: float) -> None:
        """Called after each micro-batch's backward, in order, except for fillers.

        record: what the loss returned. gradients: `scale` times this rank's gradient of the micro-batch's loss, one whole
        tensor for each parameter; valid until the call returns.
        """
        ...

    def write(self, gradients: list[Tensor]) -> None:
        """Overwrite `gradients` in place with the sum, at the same scale. Called once, after the last micro-batch."""
        ...


@dataclass(frozen=True, slots=True)
class GradientStep:
    """What `TrainEngine.step` did. Unless `applied`, a gradient or the norm of all was not finite, and nothing has changed."""

    grad_norm: float
    """Euclidean norm before clipping, over all parameters and ranks; nan when it was not finite."""
    limit: float
    """The norm that a longer gradient was cut to."""
    applied: bool


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
        """Whether both would score the same: no step since the start, or since the reference became the current policy."""
        ...

    @property
    def packs_rows(self) -> bool:
        """Whether several sequences may share a row: the models keep them apart, and learner.packed_rows allows it."""
        ...

    @property
    def shares_prompts(self) -> bool:
        """Whether a prompt may be in a row once before several of its responses: the models score them there as alone."""
        ...

    def token_statistics(self, micro_batches: Sequence[MicroBatch], policy: Policy) -> list[TokenStatistics]:
        """Forward without gradient; one result for each micro-batch."""
        ...

    def backward(self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R]) -> Backward[R]:
        """Add up gradients over micro-batches and ranks."""
        ...

    def backward_one_by_one(
        self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R], total: GradientSum[R]
    ) -> Backward[R]:
        """Like `backward`, but `total` is given each micro-batch's gradient and decides what they add up to on this rank.

        Called instead of `backward`, once a step. Raises InputError where the engine was not made for it, which it is for
        advantage.baseline = "minimum_variance_exact".
        """
        ...

    def step(self, learning_rate: float) -> GradientStep:
        """Clip, step at this learning rate, clear the gradients. If one is not finite on any rank, or their norm overflows, no
        rank changes anything."""
        ...

    def discard_gradients(self) -> None:
        """Forget what `backward` added up; weights and optimizer stay as they are."""
        ...

    def ratchet_reference(self) -> None:
        """reference := current, bit for bit (rounded where the reference is kept in bfloat16)."""
        ...

    def roll_back_reference(self) -> None:
        """reference := what it was before the last ratchet_reference; may be called once after each.

        Raises InputError where no earlier reference is kept (reference.roll_back is not set).
        """
        ...

    def blend_reference(self, decay: float, *, debiased: bool = False) -> None:
        """reference := decay x reference + (1 - decay) x current; 0 copies, 1 leaves it alone.

        debiased: the weights it began with count like those of one step more, so that early steps weigh more than 1 - decay.
        """
        ...

    def weight_shapes(self, dtype: torch.dtype | None) -> list[tuple[str, Tensor]]:
        """What `copy_weights` copies, as tensors on the meta device: names and shapes that a checkpoint of the model has, in this
        dtype (None: each in its own). Buffers of a checkpoint are among them, in their own dtype. The same after every step.
        """
        ...

    def copy_weights(self, into: Mapping[str, Tensor]) -> None:
        """Copy the current weights into the tensors of `weight_shapes`' names, in their dtype. Every rank calls it; what it is
        given counts on rank 0. On a GPU the copies are done when its current stream comes there.
        """
        ...

    def sequence_logps(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs (nats, temperature 1) of each token given those before it, from the second token of each sequence on.

        Scored in one forward, as training scores them: each behind others in a row of its own where `packs_rows`.
        """
        ...

    def save(self, folder: Path, *, in_background: bool = False) -> None:
        """Write weights, optimizer, predictor and reference as they are now into an existing empty folder; every rank writes its
        share. One `save` at a time: `is_saved` has to say yes before the next.

        in_background: return once what is to be written is in host memory, and write it on a thread.
        """
        ...

    def is_saved(self, *, wait: bool) -> bool:
        """Whether every rank has written its part of the last `save` durably; the same on every rank. wait: return only then.

        Raises what kept this rank from writing, such as OSError, and RatchetError where it was another rank.

        Waits for: the disk, with `wait`, and every other rank to call it too.
        Until: the disk has no deadline; ranks wait up to the collective timeout that the engine was made with.
        Ended by: the last byte of the last rank, or an error.
        Metric: ratchet_waiting{room="learner", awaiting="checkpoint"}.
        """
        ...

    def damage(self, folder: Path) -> Damaged | None:
        """The first tensor file of a checkpoint that is not as it was written, the same on every rank; None: there is none. Reads
        every file once."""
        ...

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote, exactly where ranks and ZeRO stage are the same, and within rounding where they are
        not. Raises InputError when it is of another model, dtype or adapters."""
        ...

    def export(self, folder: Path) -> None:
        """Write a Hugging Face folder in the engine's dtype, on rank 0: safetensors, and config and tokenizer of the source."""
        ...

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        """Elementwise sum, the same on every rank; the argument is not changed.

        Waits for: every other rank to call it too.
        Until: the collective timeout that the engine was made with (learner/__main__.py).
        Ended by: the last rank's call, or an error when a rank has died or the timeout has passed.
        Metric: ratchet_waiting{room="learner", awaiting="other ranks"}.
        """
        ...

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        """Rank 0's bytes on every rank; the others pass None.

        Waits for: rank 0's order on other ranks, the other ranks on rank 0.
        Until: the collective timeout that the engine was made with (learner/__main__.py).
        Ended by: rank 0's call, or an error when a rank has died or the timeout has passed.
        Metric: ratchet_waiting{room="learner", awaiting="other ranks"}.
        """
        ...

    def barrier(self) -> None:
        """Return once every rank is here.

        Waits for: every other rank to call it too.
        Until: the collective timeout that the engine was made with (learner/__main__.py).
        Ended by: the last rank's call, or an error when a rank has died or the timeout has passed.
        Metric: ratchet_waiting{room="learner", awaiting="other ranks"}.
        """
        ...

    def close(self) -> None:
        """Leave the process group."""
        ...
