"""The ragged batch of one step. Each column is declared once, with its axis, dtype and source; the rest follows from that.

To add a token column that objectives see: a field of `StepBatch` here, and a field of the same name in
learner/objective/tokens.py.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from learner.batch.read import Read, beginning, ids, per_token
from learner.batch.sift import KeptSequence, SiftedGroup, Tally, sift, tally
from learner.objective.ratios import segment_sum
from services.config.learner import LearnerConfig
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the columns take one sequence from."""

    prompt: Prompt
    group: int
    """Index of the sequence's group in the batch."""
    sequence: KeptSequence
    policy_version: int
    """The learner's."""


@dataclass(frozen=True, slots=True)
class TokenColumn:
    """Marks a field with one value for each response token, [T]."""

    dtype: torch.dtype
    source: "Callable[[Source], np.ndarray[Any, Any]]"
    """The values of one sequence."""


@dataclass(frozen=True, slots=True)
class SequenceColumn:
    """Marks a field with one value for each sequence, [N]."""

    dtype: torch.dtype
    source: Callable[[Source], float]


@dataclass(frozen=True, slots=True)
class StepBatch:
    """N sequences; the tokens of all their responses, which the policy sampled, on one flat axis T, sequence after sequence."""

    prompt_ids: tuple[Tensor, ...]
    """N of int64 [P_i]."""
    cu_seqlens: Tensor
    """int64 [N + 1]: sequence i has the tokens cu_seqlens[i] to cu_seqlens[i + 1]."""
    tally: Tally
    read: tuple[tuple[Read, ...], ...]
    """N of what an environment said within the sequence, in order; it is on no axis of the batch, only in the rows."""

    response_ids: Annotated[Tensor, TokenColumn(torch.int64, lambda of: of.sequence.trajectory.token_ids.numpy())]
    """int64 [T]."""
    behavior_logp: Annotated[
        Tensor, TokenColumn(torch.float32, lambda of: of.sequence.trajectory.behavior_logp.numpy())
    ]
    """float32 [T], nats. Where `mask` is False it may be anything, nan included."""
    mask: Annotated[Tensor, TokenColumn(torch.bool, lambda of: np.frombuffer(of.sequence.mask, dtype=np.bool_))]
    """bool [T]: the token counts."""
    lag_steps: Annotated[
        Tensor, TokenColumn(torch.int64, lambda of: of.policy_version - of.sequence.trajectory.policy_versions())
    ]
    """int64 [T]: the learner's policy version minus the one that sampled the token; negative for a version that a restart
    took back."""

    turn: Annotated[Tensor, TokenColumn(torch.int64, lambda of: per_token(of.sequence.trajectory)[0])]
    """int64 [T]: number of the token's turn in its conversation, from 0; 0 in a response to the prompt alone."""
    turn_reward: Annotated[Tensor, TokenColumn(torch.float64, lambda of: per_token(of.sequence.trajectory)[1])]
    """float64 [T]: what the environment gave for that turn; 0 where it gave nothing."""

    reward: Annotated[Tensor, SequenceColumn(torch.float64, lambda of: of.sequence.reward)]
    """float64 [N]."""
    group: Annotated[Tensor, SequenceColumn(torch.int64, lambda of: of.group)]
    """int64 [N]: index of the sequence's group, 0.. in order."""
    temperature: Annotated[Tensor, SequenceColumn(torch.float32, lambda of: of.prompt.temperature)]
    """float32 [N]: at which the sequence was sampled."""

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def counted_sequences(self) -> int:
        """Number of sequences with a token that counts."""
        return int((segment_sum(self.mask.long(), self.cu_seqlens.diff()) > 0).sum())

    def to(self, device: torch.device) -> "StepBatch":
        """The same batch with every column on `device`; what only packing reads stays."""
        moved = {name: getattr(self, name).to(device) for name in (*TOKEN_COLUMNS, *SEQUENCE_COLUMNS)}
        return dataclasses.replace(self, **moved)

    def groups(self, first: int, end: int) -> "StepBatch":
        """The part with the groups first to end - 1, which are numbered from 0 again. The tally stays that of the whole."""
        rows = slice(*(int((self.group < g).sum()) for g in (first, end)))
        tokens = slice(int(self.cu_seqlens[rows.start]), int(self.cu_seqlens[rows.stop]))
        columns = {name: getattr(self, name)[tokens] for name in TOKEN_COLUMNS}
        columns |= {name: getattr(self, name)[rows] for name in SEQUENCE_COLUMNS}
        columns["group"] = columns["group"] - first
        return StepBatch(
            prompt_ids=self.prompt_ids[rows],
            cu_seqlens=self.cu_seqlens[rows.start : rows.stop + 1] - tokens.start,
            tally=self.tally,
            read=self.read[rows],
            **columns,
        )


def _columns(kind: type[C]) -> dict[str, C]:
    marked = ((f.name, get_args(f.type)) for f in dataclasses.fields(StepBatch) if get_origin(f.type) is Annotated)
    return {name: mark for name, (_, mark) in marked if isinstance(mark, kind)}


TOKEN_COLUMNS = _columns(TokenColumn)
"""Fields of StepBatch on the axis T, by name."""
SEQUENCE_COLUMNS = _columns(SequenceColumn)
"""Fields of StepBatch on the axis N, by name."""


def assemble(groups: Sequence[ScoredGroup], policy_version: int, settings: LearnerConfig) -> StepBatch:
    """Sift everything that was consumed for one step and build its batch."""
    sifted = [sift(group, policy_version, settings) for group in groups]
    return batch_of(sifted, tally(groups, sifted), policy_version)


def batch_of(sifted: Sequence[SiftedGroup], counted: Tally, policy_version: int) -> StepBatch:
    """The batch of one step. It may come out empty; then there is no step.

    sifted: the groups consumed for the step; dropped ones add nothing and may be left out.
    policy_version: the learner's, against which lag is measured.
    """
    groups = [group for group in sifted if group.kept]
    prompts = [ids(group.prompt.token_ids) for group in groups]
    rows = [
        Source(group.prompt, index, sequence, policy_version)
        for index, group in enumerate(groups)
        for sequence in group.kept
    ]
    lengths = [len(row.sequence.trajectory) for row in rows]
    columns = {name: _flat([mark.source(row) for row in rows], mark.dtype) for name, mark in TOKEN_COLUMNS.items()}
    for name, mark in SEQUENCE_COLUMNS.items():
        columns[name] = torch.tensor([mark.source(row) for row in rows], dtype=mark.dtype)
    begun = [beginning(row.sequence.trajectory, prompts[row.group]) for row in rows]
    return StepBatch(
        prompt_ids=tuple(prompt for prompt, _ in begun),
        cu_seqlens=torch.tensor([0, *np.cumsum(lengths).tolist()], dtype=torch.int64),
        tally=counted,
        read=tuple(read for _, read in begun),
        **columns,
    )


def split(batch: StepBatch, parts: int) -> list[StepBatch]:
    """Parts with as equal a number of whole groups as possible, in order; fewer when there are fewer groups."""
    groups = int(batch.group.max()) + 1 if len(batch) else 0
    if parts == 1 or groups <= 1:
        return [batch]
    bounds = [groups * i // min(parts, groups) for i in range(min(parts, groups) + 1)]
    return [batch.groups(first, end) for first, end in itertools.pairwise(bounds)]


def _flat(arrays: "Sequence[np.ndarray[Any, Any]]", dtype: torch.dtype) -> Tensor:
    return torch.tensor(np.concatenate(arrays), dtype=dtype) if arrays else torch.zeros(0, dtype=dtype)
