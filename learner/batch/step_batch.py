"""Scored groups in, the ragged batch of one step out; whatever does not reach the loss is counted by reason.

Invariants: a sequence is in the batch only if it has a token that counts, every log-prob of those is finite, and its
group has two sequences among those in the batch, with different rewards unless `zero_variance = "train"`. So the group
mean never sees a rejected one.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from learner.objective.ratios import segment_sum
from services.config.learner import LearnerConfig
from services.errors import InputError
from services.wire.score import ScoredGroup
from services.wire.trajectory import Trajectory

GroupDrop = Literal["zero_variance", "single", "stale"]
"""Why a whole group does not reach the loss. zero_variance: all rewards equal. single: fewer than two sequences left.
stale: a token older than max_lag under `stale_tokens = "drop"`."""
SequenceDrop = Literal["non_finite", "truncated", "stale", "empty"]
"""Why a sequence does not: a behavior log-prob that is no number, cut by max_tokens under `truncated = "mask"`, every
token masked as stale, or no token at all (in the prompt or in the response)."""
StaleTokens = Literal["train", "drop", "mask"]


@dataclass(frozen=True, slots=True)
class Tally:
    """What was consumed and what became of it."""

    groups: int = 0
    sequences: int = 0
    dropped_groups: dict[GroupDrop, int] = field(default_factory=dict)
    dropped_sequences: dict[SequenceDrop, int] = field(default_factory=dict)
    zero_variance_groups: int = 0
    """With equal rewards, dropped for it or not."""
    masked_tokens: int = 0
    """Tokens older than max_lag, left out under `stale_tokens = "mask"`."""
    mean_reward: float = float("nan")
    """Over every sequence consumed."""
    pass_rate: float = float("nan")
    """Fraction of them with the verdict `correct`."""


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


def old_tokens(
    policy_version: "np.ndarray[tuple[int], np.dtype[np.int32]]", learner_version: int, max_lag: int
) -> Tensor:
    """bool [L]: tokens sampled more than max_lag steps ago."""
    return torch.from_numpy(learner_version - policy_version > max_lag)


@dataclass(frozen=True, slots=True)
class _Kept:
    trajectory: Trajectory
    reward: float
    mask: Tensor


@dataclass(frozen=True, slots=True)
class SiftedGroup:
    """What is left of one group, and why the rest is not."""

    kept: tuple[_Kept, ...]
    """Empty when the group was dropped."""
    drop: GroupDrop | None
    dropped_sequences: dict[SequenceDrop, int]
    masked_tokens: int


def sift(
    scored: ScoredGroup,
    policy_version: int,
    *,
    stale_tokens: StaleTokens,
    max_lag: int,
    truncated: Literal["train", "mask"],
    zero_variance: Literal["drop", "train"] = "drop",
) -> SiftedGroup:
    """The rules for one group, in order: age, sequences that cannot be used, singles, zero variance. Pure.

    policy_version: the learner's. Callable as groups arrive, so that a step waits for groups that will count.
    """
    trajectories = scored.group.trajectories
    old = [old_tokens(t.policy_versions(), policy_version, max_lag) for t in trajectories]
    if stale_tokens == "drop" and any(bool(o.any()) for o in old):
        return SiftedGroup((), "stale", {}, 0)
    kept: list[_Kept] = []
    reasons: Counter[SequenceDrop] = Counter()
    masked_tokens = 0
    for trajectory, score, is_old in zip(trajectories, scored.scores, old, strict=True):
        mask = ~is_old if stale_tokens == "mask" else torch.ones_like(is_old)
        masked_tokens += int((~mask).sum())
        finite = torch.from_numpy(np.isfinite(trajectory.behavior_logp.numpy()))
        if score.reward is None:
            raise InputError(
                f'group {scored.group.prompt.group_id} has a score without a reward (verdict "{score.verdict}"); '
                "the verifier hands over a group only when every trajectory has one"
            )
        if len(trajectory) == 0 or len(scored.group.prompt.token_ids) == 0:
            reasons["empty"] += 1
        elif truncated == "mask" and trajectory.finish_reason == "length":
            reasons["truncated"] += 1
        elif not mask.any():
            reasons["stale"] += 1
        elif not finite[mask].all():
            reasons["non_finite"] += 1
        else:
            kept.append(_Kept(trajectory, score.reward, mask))
    rewards = [k.reward for k in kept]
    drop: GroupDrop | None = None
    if len(kept) < 2:
        drop = "single"
    elif zero_variance == "drop" and max(rewards) == min(rewards):
        drop = "zero_variance"
    return SiftedGroup(() if drop else tuple(kept), drop, dict(reasons), masked_tokens)


def assemble(groups: Sequence[ScoredGroup], policy_version: int, settings: LearnerConfig) -> StepBatch:
    """The batch of one step from everything that was consumed for it. May come out empty: then there is no step.

    policy_version: the learner's, against which lag is measured.
    """
    sifted = [
        sift(
            g,
            policy_version,
            stale_tokens=settings.stale_tokens,
            max_lag=settings.max_lag,
            truncated=settings.truncated,
            zero_variance=settings.zero_variance,
        )
        for g in groups
    ]
    scores = [score for g in groups for score in g.scores]
    dropped_sequences: Counter[SequenceDrop] = Counter()
    for s in sifted:
        dropped_sequences.update(s.dropped_sequences)
    tally = Tally(
        groups=len(groups),
        sequences=len(scores),
        dropped_groups=dict(Counter(s.drop for s in sifted if s.drop is not None)),
        dropped_sequences=dict(dropped_sequences),
        zero_variance_groups=sum(len({score.reward for score in g.scores}) == 1 for g in groups),
        masked_tokens=sum(s.masked_tokens for s in sifted),
        mean_reward=float(np.mean([s.reward for s in scores])) if scores else float("nan"),
        pass_rate=float(np.mean([s.verdict == "correct" for s in scores])) if scores else float("nan"),
    )
    with_prompt = [(g.group.prompt, s.kept) for g, s in zip(groups, sifted, strict=True) if s.kept]
    rows = [(prompt, index, k) for index, (prompt, kept) in enumerate(with_prompt) for k in kept]
    prompts = [torch.tensor(prompt.token_ids.numpy(), dtype=torch.int64) for prompt, _ in with_prompt]
    lengths = [len(k.trajectory) for _, _, k in rows]
    versions = _flat([k.trajectory.policy_versions() for _, _, k in rows], torch.int64)
    return StepBatch(
        prompt_ids=tuple(prompts[index] for _, index, _ in rows),
        response_ids=_flat([k.trajectory.token_ids.numpy() for _, _, k in rows], torch.int64),
        cu_seqlens=torch.tensor([0, *np.cumsum(lengths).tolist()], dtype=torch.int64),
        behavior_logp=_flat([k.trajectory.behavior_logp.numpy() for _, _, k in rows], torch.float32),
        policy_version=versions,
        mask=torch.cat([k.mask for _, _, k in rows]) if rows else torch.zeros(0, dtype=torch.bool),
        reward=torch.tensor([k.reward for _, _, k in rows], dtype=torch.float64),
        group=torch.tensor([index for _, index, _ in rows], dtype=torch.int64),
        temperature=torch.tensor([prompt.temperature for prompt, _, _ in rows], dtype=torch.float32),
        lag_steps=policy_version - versions,
        tally=tally,
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


def _flat(arrays: "list[np.ndarray[tuple[int], np.dtype[np.generic]]]", dtype: torch.dtype) -> Tensor:
    return torch.tensor(np.concatenate(arrays), dtype=dtype) if arrays else torch.zeros(0, dtype=dtype)
