"""What an optimizer step starts from: its mini-batch on the engine's device, and places in it."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.packing import MicroBatch
from learner.batch.step_batch import TOKEN_COLUMNS, StepBatch
from learner.objective.advantage import pivots
from learner.objective.ratios import segment_sum
from learner.objective.tokens import Tokens

SHARED_COLUMNS = [f.name for f in dataclasses.fields(Tokens) if f.name in TOKEN_COLUMNS]
"""Columns of a batch that objectives see as they are."""


@dataclass(frozen=True, slots=True)
class Places:
    """Some whole sequences of the mini-batch, and where their tokens are on its flat axis. On the engine's device."""

    token_index: Tensor
    """int64 [M]."""
    sequence_index: Tensor
    """int64 [n], in the order of their tokens."""


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

    @classmethod
    def of(cls, batch: StepBatch, device: torch.device) -> "StepInputs":
        lengths = batch.cu_seqlens.diff()
        counted = segment_sum(batch.mask.long(), lengths)
        return cls(
            batch=batch.to(device),
            lengths=lengths.to(device),
            counted=counted.to(device),
            step_sequences=int((counted > 0).sum()),
            step_tokens=int(batch.mask.sum()),
        )

    @property
    def device(self) -> torch.device:
        return self.batch.mask.device

    @property
    def everything(self) -> Places:
        """All sequences of the mini-batch."""
        return Places(
            token_index=torch.arange(len(self.batch.mask), device=self.device),
            sequence_index=torch.arange(len(self.lengths), device=self.device),
        )

    def places(self, micro_batch: MicroBatch) -> Places:
        return Places(
            token_index=micro_batch.token_index.to(self.device),
            sequence_index=micro_batch.sequence_index.to(self.device),
        )

    def normal(self, width: int) -> Tensor:
        """Standard normal numbers, the same for the same responses on every rank and after a restart. float32 [N, width]."""
        random = torch.Generator().manual_seed(int(self.batch.response_ids.sum()))
        return torch.randn(len(self.lengths), width, generator=random).to(self.device)

    def shared_columns(self, token_index: Tensor) -> dict[str, Tensor]:
        """The fields of `Tokens` that are columns of the batch, at these places."""
        return {name: getattr(self.batch, name)[token_index] for name in SHARED_COLUMNS}


def without_pivots(batch: StepBatch) -> StepBatch:
    """The batch with no token of a pivot counted: the pivot of a group is its baseline and nothing else (MC-GRPO)."""
    mask, ends = batch.mask.clone(), batch.cu_seqlens.tolist()
    for pivot in pivots(batch.reward, batch.group).tolist():
        mask[ends[pivot] : ends[pivot + 1]] = False
    return dataclasses.replace(batch, mask=mask)
