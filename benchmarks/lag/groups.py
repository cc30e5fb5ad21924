"""Responses into scored groups: the records that a learner gets from rollouts and verifiers."""

from collections.abc import Sequence

from benchmarks.lag.sampler import Sampled
from benchmarks.lag.task import ANY
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group, Trajectory, VersionSpan
from services.wire.verdict import Score


def is_right(response: Sequence[int], answer: Sequence[int]) -> bool:
    """Every token, the end included, but for those that may be any."""
    return len(response) == len(answer) and all(a in (token, ANY) for token, a in zip(response, answer, strict=True))


def responses(sampled: Sampled) -> list[list[int]]:
    return [row[:length] for row, length in zip(sampled.token_ids.tolist(), sampled.lengths.tolist(), strict=True)]


def scored_groups(
    problems: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    sampled: Sampled,
    *,
    group_size: int,
    policy_version: int,
    first_number: int,
) -> list[ScoredGroup]:
    """Row i x group_size + j of `sampled` is response j to problem i."""
    texts, logp, ended = responses(sampled), sampled.logp.tolist(), sampled.ended.tolist()
    made = []
    for i, (prompt, answer) in enumerate(problems):
        rows = range(i * group_size, (i + 1) * group_size)
        trajectories = tuple(
            Trajectory(
                token_ids=Array.of(texts[row], "<i4"),
                behavior_logp=Array.of(logp[row][: len(texts[row])], "<f4"),
                spans=(VersionSpan(policy_version, 0, len(texts[row])),),
                finish_reason="stop" if ended[row] else "length",
                text="",
            )
            for row in rows
        )
        scores = tuple(
            Score(verdict="correct" if right else "incorrect", reward=float(right), detail="", elapsed_s=0.0)
            for right in (is_right(texts[row], answer) for row in rows)
        )
        issued = Prompt(
            group_id=f"train-{first_number + i}",
            sequence_number=first_number + i,
            purpose="train",
            row=i,
            token_ids=Array.of(prompt, "<i4"),
            group_size=group_size,
            temperature=1.0,
            max_tokens=sampled.token_ids.shape[1],
            stop_token_ids=(),
            seed=0,
            grader="exact",
            reference="",
            options={},
        )
        group = Group(prompt=issued, trajectories=trajectories, replica_id="laboratory")
        made.append(ScoredGroup(group=group, scores=scores, verifier_id="laboratory"))
    return made
