"""Which sequences of a scored group reach the loss; everything else is counted by reason.

Invariants: a kept sequence has a token that counts, and every behavior log-prob of such tokens is finite. A kept group has at
least two kept sequences, with different rewards (and verdicts, where `zero_variance_of = "verdict"`; or turns, under
`advantage.turns`) unless `zero_variance = "train"`. The group mean therefore never sees a rejected sequence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import torch

from learner.batch.format_gate import capped_at
from learner.batch.read import per_token
from learner.batch.stale import RULES, Tokens, is_stale
from learner.objective.baseline import all_equal
from learner.objective.shaping import shaped_rewards
from learner.objective.turns import token_turn_advantages
from services.config.advantage import AdvantageConfig
from services.config.learner import LearnerConfig
from services.errors import InputError
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Trajectory
from services.wire.verdict import Score, Verdict

GroupDrop = Literal["zero_variance", "single", "stale"]
"""Why a whole group does not reach the loss. zero_variance: all rewards are equal and no turn has an advantage, or all verdicts
are equal where `zero_variance_of` says so. single: fewer than two sequences are left. stale: the rule for stale tokens drops
it."""
SequenceDrop = Literal["non_finite", "truncated", "stale", "empty"]
"""Why a sequence does not reach the loss. non_finite: a behavior log-prob is not finite. truncated: it was cut by a limit
under `truncated = "mask"`. stale: the rule for stale tokens leaves none that counts. empty: the prompt or the response has no
token."""


class KeptSequence(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence that reaches the loss."""

    trajectory: Trajectory
    reward: float
    """The verifier's, shaped by learner.shaping."""
    mask: bytes
    """One byte for each response token: 1 where the token counts, 0 where it is left out of the loss."""


class SiftedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of one group, and why the rest is not. A struct, so that rank 0 can send it to the other ranks."""

    prompt: Prompt
    kept: tuple[KeptSequence, ...] = ()
    """Empty when the group was dropped."""
    drop: GroupDrop | None = None
    dropped_sequences: dict[SequenceDrop, int] = {}
    masked_tokens: int = 0
    """Stale tokens that the rule for them leaves out of the loss."""
    shaped_rewards: tuple[float, ...] = ()
    """The shaped reward of every sequence of the group as it came."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was consumed for one step, and what became of it."""

    groups: int = 0
    sequences: int = 0
    dropped_groups: dict[GroupDrop, int] = field(default_factory=dict)
    dropped_sequences: dict[SequenceDrop, int] = field(default_factory=dict)
    """Sequences left out of their group. The sequences of a group dropped as stale are not looked at one by one."""
    zero_variance_groups: int = 0
    """Groups whose rewards are all equal up to rounding, whether or not they were dropped for it."""
    masked_tokens: int = 0
    """Stale tokens that the rule for them leaves out of the loss."""
    mean_reward: float = float("nan")
    """Mean over every sequence consumed, of the verifier's rewards."""
    mean_shaped_reward: float = float("nan")
    """The same of shaped rewards."""
    pass_rate: float = float("nan")
    """Fraction of the sequences consumed with the verdict `correct`."""
    mean_response_tokens: float = float("nan")
    """Mean number of response tokens of the sequences consumed."""
    cut_fraction: float = float("nan")
    """Fraction of the sequences consumed that a limit on tokens or turns cut, whether or not they were left out for it."""
    mean_grading_s: float = float("nan")
    """Mean time that a verifier took to grade one of those sequences."""


def sift(scored: ScoredGroup, policy_version: int, settings: LearnerConfig) -> SiftedGroup:
    """Apply the rules for one group, in order: stale tokens, unusable sequences, singles, zero variance. Pure.

    policy_version: the learner's, against which lag is measured. Call it as each group arrives, so that a step waits for
    groups that will count. Raises InputError when a score has no reward.
    """
    prompt, trajectories = scored.group.prompt, scored.group.trajectories
    shaped = _shaped(scored, settings)
    rule = RULES[settings.stale_tokens]
    counting = rule([is_stale(trajectory, policy_version, settings.max_lag) for trajectory in trajectories])
    if counting is None:
        return SiftedGroup(prompt=prompt, drop="stale", shaped_rewards=shaped)
    kept: list[KeptSequence] = []
    verdicts: list[Verdict] = []
    reasons: Counter[SequenceDrop] = Counter()
    masked_tokens = 0
    for trajectory, score, reward, counts in zip(trajectories, scored.scores, shaped, counting, strict=True):
        masked_tokens += int((~counts).sum())
        reason = _why_dropped(trajectory, prompt, counts, settings)
        if reason is None:
            kept.append(KeptSequence(trajectory=trajectory, reward=reward, mask=counts.tobytes()))
            verdicts.append(score.verdict)
        else:
            reasons[reason] += 1
    drop = _why_group_dropped(kept, verdicts, settings)
    return SiftedGroup(
        prompt=prompt,
        kept=() if drop else tuple(kept),
        drop=drop,
        dropped_sequences=dict(reasons),
        masked_tokens=masked_tokens,
        shaped_rewards=shaped,
    )


def tally(groups: Sequence[ScoredGroup], sifted: Sequence[SiftedGroup]) -> Tally:
    """Count what was consumed for one step. sifted: the result of `sift` for each group."""
    scores = [score for group in groups for score in group.scores]
    trajectories = [trajectory for group in groups for trajectory in group.group.trajectories]
    dropped_sequences: Counter[SequenceDrop] = Counter()
    for group in sifted:
        dropped_sequences.update(group.dropped_sequences)
    return Tally(
        groups=len(groups),
        sequences=len(scores),
        dropped_groups=dict(Counter(group.drop for group in sifted if group.drop is not None)),
        dropped_sequences=dict(dropped_sequences),
        zero_variance_groups=sum(all_equal(group.shaped_rewards) for group in sifted),
        masked_tokens=sum(group.masked_tokens for group in sifted),
        mean_reward=_mean([score.reward for score in scores]),
        mean_shaped_reward=_mean([reward for group in sifted for reward in group.shaped_rewards]),
        pass_rate=_mean([score.verdict == "correct" for score in scores]),
        mean_response_tokens=_mean([len(trajectory) for trajectory in trajectories]),
        cut_fraction=_mean([trajectory.finish_reason != "stop" for trajectory in trajectories]),
        mean_grading_s=_mean([score.elapsed_s for score in scores]),
    )


def _mean(values: Sequence[Any]) -> float:
    """nan of nothing."""
    return float(np.mean(values)) if values else float("nan")


def _shaped(scored: ScoredGroup, settings: LearnerConfig) -> tuple[float, ...]:
    """The shaped reward of each sequence of the group as it came. Raises InputError when a score has no reward."""
    rewards = tuple(_reward(score, scored) for score in scored.scores)
    if settings.shaping is None:
        return rewards
    trajectories = scored.group.trajectories
    gates = settings.shaping.format
    shaped = shaped_rewards(
        settings.shaping,
        np.array(rewards, dtype=np.float64),
        correct=np.array([score.verdict == "correct" for score in scored.scores]),
        tokens=np.array([len(trajectory) for trajectory in trajectories], dtype=np.int64),
        capped_at=np.array([capped_at(gates, trajectory.text) for trajectory in trajectories], dtype=np.float64),
        max_tokens=scored.group.prompt.max_tokens,
    )
    return tuple(shaped.tolist())


def _reward(score: Score, scored: ScoredGroup) -> float:
    if score.reward is None:
        raise InputError(
            f"group {scored.group.prompt.group_id} has a score without a reward "
            f'(verdict "{score.verdict}", from verifier {scored.verifier_id}); '
            "a verifier hands over a group only when every trajectory has one"
        )
    return score.reward


def _why_dropped(
    trajectory: Trajectory, prompt: Prompt, counts: Tokens, settings: LearnerConfig
) -> SequenceDrop | None:
    if len(trajectory) == 0 or len(prompt.token_ids) == 0:
        return "empty"
    if settings.truncated == "mask" and trajectory.finish_reason != "stop":
        return "truncated"
    if not counts.any():
        return "stale"
    return None if np.isfinite(trajectory.behavior_logp.numpy()[counts]).all() else "non_finite"


def _why_group_dropped(
    kept: Sequence[KeptSequence], verdicts: list[Verdict], settings: LearnerConfig
) -> GroupDrop | None:
    """kept, verdicts: the sequences that are left, and their verdicts."""
    if len(kept) < 2:
        return "single"
    if settings.zero_variance == "train":
        return None
    alike = settings.zero_variance_of == "verdict" and len(set(verdicts)) == 1
    equal = all_equal([sequence.reward for sequence in kept]) and not _turns_differ(kept, settings.advantage)
    return "zero_variance" if alike or equal else None


def _turns_differ(kept: Sequence[KeptSequence], settings: AdvantageConfig) -> bool:
    """Whether a turn of one group has an advantage under learner.advantage.turns."""
    if settings.turns is None:
        return False
    turn, reward = (np.concatenate(of_all) for of_all in zip(*(per_token(one.trajectory) for one in kept), strict=True))
    sequence = torch.arange(len(kept)).repeat_interleave(torch.tensor([len(one.trajectory) for one in kept]))
    of_one_group = torch.zeros(len(kept), dtype=torch.int64)
    columns = (torch.from_numpy(turn), torch.from_numpy(reward), sequence, of_one_group)
    return bool(token_turn_advantages(*columns, settings).any())
