"""What an optimizer step starts from: its mini-batch on the engine's device, and places in it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.batch.step_batch import TOKEN_COLUMNS, StepBatch
from learner.objective.advantage import pivots
from learner.objective.ratios import over_tokens, segment_sum
from learner.objective.tokens import Tokens
from learner.objective.turns import token_turn_advantages
from services.config.advantage import AdvantageConfig

SHARED_COLUMNS = [f.name for f in dataclasses.fields(Tokens) if f.name in TOKEN_COLUMNS]
"""Columns of a batch that objectives see as they are."""


@dataclass(frozen=True, slots=True)
class Places:
    """Some whole sequences of the mini-batch, and where their tokens are on its flat axis. On the engine's device.

    Made on the CPU, where the batch is known, too: how many tokens count, or which groups there are, would else be a question
    to a GPU, for whose answer the host waits at every micro-batch.
    """

    token_index: Tensor
    """int64 [M]."""
    sequence_index: Tensor
    """int64 [n], in the order of their tokens."""
    counted: Tensor
    """int64 [C]: which of these M tokens count."""
    groups: Tensor
    """int64 [g]: groups of the mini-batch that have a sequence here."""
    group: Tensor
    """int64 [n]: index of each sequence's group among these."""

    def that_count(self, values: Tensor) -> Tensor:
        """Values of the tokens that count, [C]. values: [M]."""
        return values if len(self.counted) == len(values) else values.index_select(0, self.counted)


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Everything about a mini-batch that is known before a policy has scored it; computed once."""

    batch: StepBatch
    """Its columns are on the engine's device."""
    lengths: Tensor
    """int64 [N]: response tokens of each sequence."""
    counted: Tensor
    """int64 [N]: response tokens that count."""
    step_sequences: int
    """Sequences of the step with a token that counts, on all ranks."""
    step_tokens: int
    """Tokens of the step that count, on all ranks."""
    everything: Places
    """All sequences of the mini-batch."""
    turn_advantage: Tensor | None
    """float32 [T]: what learner.advantage.turns adds to each token's advantage; None without that section."""
    host_group: "np.ndarray[Any, Any]"
    """int64 [N]: the batch's `group`, on the CPU."""
    noise_seed: int
    """Follows from the responses."""

    @classmethod
    def of(cls, batch: StepBatch, device: torch.device, settings: AdvantageConfig) -> "StepInputs":
        lengths = batch.cu_seqlens.diff()
        counted = segment_sum(batch.mask.long(), lengths)
        group = batch.group.numpy()
        everything = _places(torch.arange(len(batch.mask)), torch.arange(len(lengths)), batch.mask, group, device)
        return cls(
            batch=batch.to(device),
            lengths=lengths.to(device),
            counted=counted.to(device),
            step_sequences=int((counted > 0).sum()),
            step_tokens=int(batch.mask.sum()),
            everything=everything,
            turn_advantage=_turn_advantage(batch, settings, device),
            host_group=group,
            noise_seed=int(batch.response_ids.sum()),
        )

    @property
    def device(self) -> torch.device:
        return self.batch.mask.device

    def places(self, micro_batch: MicroBatch) -> Places:
        return _places(
            micro_batch.token_index,
            micro_batch.sequence_index,
            micro_batch.counts[: len(micro_batch.token_index)],  # a filler has a token that belongs to none
            self.host_group,
            self.device,
        )

    def normal(self, width: int) -> Tensor:
        """Standard normal numbers, the same for the same responses on every rank and after a restart. float32 [N, width]."""
        random = torch.Generator().manual_seed(self.noise_seed)
        return torch.randn(len(self.lengths), width, generator=random).to(self.device, non_blocking=True)

    def shared_columns(self, token_index: Tensor) -> dict[str, Tensor]:
        """The fields of `Tokens` that are columns of the batch, at these places."""
        return {name: getattr(self.batch, name)[token_index] for name in SHARED_COLUMNS}


def _turn_advantage(batch: StepBatch, settings: AdvantageConfig, device: torch.device) -> Tensor | None:
    if settings.turns is None:
        return None
    lengths = batch.cu_seqlens.diff()
    sequence = over_tokens(torch.arange(len(lengths)), lengths, len(batch.turn))
    return token_turn_advantages(batch.turn, batch.turn_reward, sequence, batch.group, settings).to(device)


def _places(
    token_index: Tensor, sequence_index: Tensor, counts: Tensor, group: "np.ndarray[Any, Any]", device: torch.device
) -> Places:
    """token_index, counts: [M]; sequence_index: [n]; group: [N]. All on the CPU; copied without waiting for the device."""
    groups, own = np.unique(group[sequence_index.numpy()], return_inverse=True)
    counted = torch.from_numpy(np.flatnonzero(counts.numpy()))
    found = token_index, sequence_index, counted, torch.from_numpy(groups), torch.from_numpy(own)
    return Places(*(x.to(device, non_blocking=True) for x in found))


def without_pivots(batch: StepBatch) -> StepBatch:
    """The batch with no token of a pivot counted: the pivot of a group is its baseline and nothing else (MC-GRPO)."""
    mask, ends = batch.mask.clone(), batch.cu_seqlens.tolist()
    for pivot in pivots(batch.reward, batch.group).tolist():
        mask[ends[pivot] : ends[pivot + 1]] = False
    return dataclasses.replace(batch, mask=mask)
