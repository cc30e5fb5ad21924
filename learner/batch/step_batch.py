"""Scored groups in, the ragged batch of one step out; whatever does not reach the loss is counted by reason.

Invariants: a sequence is in the batch only if it has a token that counts, every log-prob of those is finite, and its
group has two sequences among those in the batch, with different rewards unless `zero_variance = "train"`. So the group
mean never sees a rejected one.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.batch.sift import SiftedGroup, Tally, tally
from learner.batch.sift import sift as sift_group
from learner.objective.ratios import segment_sum
from services.config.learner import LearnerConfig
from services.wire.score import ScoredGroup


@dataclass(frozen=True, slots=True)
class StepBatch:
    """N sequences; the tokens of all their responses on one flat axis T, sequence after sequence."""

    prompt_ids: tuple[Tensor, ...]
    """N of int64 [P_i]."""
    response_ids: Tensor
    """int64 [T]."""
    cu_seqlens: Tensor
    """int64 [N + 1]: sequence i has the tokens cu_seqlens[i] to cu_seqlens[i + 1]."""
    behavior_logp: Tensor
    """float32 [T], nats. Where `mask` is False it may be anything, nan included."""
    policy_version: Tensor
    """int64 [T]."""
    mask: Tensor
    """bool [T]: the token counts."""
    reward: Tensor
    """float64 [N]."""
    group: Tensor
    """int64 [N]: index of the sequence's group, 0.. in order."""
    temperature: Tensor
    """float32 [N]: at which the sequence was sampled."""
    lag_steps: Tensor
    """int64 [T]: learner's version less policy_version; negative for a token of a version that a restart took back."""
    tally: Tally

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def counted_sequences(self) -> int:
        """With a token that counts."""
        return int((segment_sum(self.mask.long(), self.cu_seqlens.diff()) > 0).sum())


def sift(
    scored: ScoredGroup,
    policy_version: int,
    *,
    stale_tokens: Any,
    max_lag: int,
    truncated: Any,
    zero_variance: Any = "drop",
) -> SiftedGroup:
    """The rules of learner/batch/sift.py by keywords, until the training loop passes its settings whole."""
    settings = LearnerConfig.model_construct(
        stale_tokens=stale_tokens, max_lag=max_lag, truncated=truncated, zero_variance=zero_variance
    )
    return sift_group(scored, policy_version, settings)


def assemble(groups: Sequence[ScoredGroup], policy_version: int, settings: LearnerConfig) -> StepBatch:
    """Sift everything that was consumed for one step and build its batch."""
    sifted = [sift_group(group, policy_version, settings) for group in groups]
    return batch_of(sifted, tally(groups, sifted), policy_version)


def batch_of(sifted: Sequence[SiftedGroup], counted: Tally, policy_version: int) -> StepBatch:
    """The batch of one step. It may come out empty; then there is no step.

    sifted: the groups consumed for the step; dropped ones add nothing and may be left out.
    policy_version: the learner's, against which lag is measured.
    """
    groups = [group for group in sifted if group.kept]
    rows = [(group.prompt, index, sequence) for index, group in enumerate(groups) for sequence in group.kept]
    prompts = [torch.tensor(group.prompt.token_ids.numpy(), dtype=torch.int64) for group in groups]
    trajectories = [sequence.trajectory for _, _, sequence in rows]
    masks = [np.frombuffer(sequence.mask, dtype=np.bool_) for _, _, sequence in rows]
    versions = _flat([t.policy_versions() for t in trajectories], torch.int64)
    return StepBatch(
        prompt_ids=tuple(prompts[index] for _, index, _ in rows),
        response_ids=_flat([t.token_ids.numpy() for t in trajectories], torch.int64),
        cu_seqlens=torch.tensor([0, *np.cumsum([len(t) for t in trajectories]).tolist()], dtype=torch.int64),
        behavior_logp=_flat([t.behavior_logp.numpy() for t in trajectories], torch.float32),
        policy_version=versions,
        mask=_flat(masks, torch.bool),
        reward=torch.tensor([sequence.reward for _, _, sequence in rows], dtype=torch.float64),
        group=torch.tensor([index for _, index, _ in rows], dtype=torch.int64),
        temperature=torch.tensor([prompt.temperature for prompt, _, _ in rows], dtype=torch.float32),
        lag_steps=policy_version - versions,
        tally=counted,
    )


def split(batch: StepBatch, parts: int) -> list[StepBatch]:
    """Parts of as equal a number of whole groups as can be, in order; fewer when there are fewer groups."""
    groups = int(batch.group.max()) + 1 if len(batch) else 0
    if parts == 1 or groups <= 1:
        return [batch]
    bounds = [groups * i // min(parts, groups) for i in range(min(parts, groups) + 1)]
    return [_groups(batch, first, end) for first, end in itertools.pairwise(bounds)]


def _groups(batch: StepBatch, first: int, end: int) -> StepBatch:
    rows = slice(*(int((batch.group < g).sum()) for g in (first, end)))
    tokens = slice(int(batch.cu_seqlens[rows.start]), int(batch.cu_seqlens[rows.stop]))
    return StepBatch(
        prompt_ids=batch.prompt_ids[rows],
        response_ids=batch.response_ids[tokens],
        cu_seqlens=batch.cu_seqlens[rows.start : rows.stop + 1] - tokens.start,
        behavior_logp=batch.behavior_logp[tokens],
        policy_version=batch.policy_version[tokens],
        mask=batch.mask[tokens],
        reward=batch.reward[rows],
        group=batch.group[rows] - first,
        temperature=batch.temperature[rows],
        lag_steps=batch.lag_steps[tokens],
        tally=batch.tally,
    )


def _flat(arrays: "Sequence[np.ndarray[Any, Any]]", dtype: torch.dtype) -> Tensor:
    return torch.tensor(np.concatenate(arrays), dtype=dtype) if arrays else torch.zeros(0, dtype=dtype)
