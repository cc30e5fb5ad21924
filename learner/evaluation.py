"""Held-out accuracy at a pinned policy version: avg@k and pass@k.

The learner waits for the results before it publishes other weights, so every token was sampled under the version that is
reported; a result of another version is left out and counted.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from learner.intake.collector import Collector
from learner.metrics import EVALUATION_RATIO
from services.clock import Deadline, now_s
from services.config import RunConfig
from services.config.prompts import EvaluationConfig
from services.datasets.dataset import Problem
from services.streams import IssueLog
from services.wire.codec import Array, encode
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup

log = logging.getLogger("ratchet.learner")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. Rewards of 1 and verdicts `correct` agree for graders that answer yes or no."""

    policy_version: int
    avg_at_k: float
    """Mean over prompts of the fraction of its k responses that are correct."""
    pass_at_k: float
    """Fraction of prompts with a correct response among k."""
    k: int
    prompts: int
    missing: int
    """Prompts without a result: dead, or sampled under another version."""
    mean_tokens: float
    seconds: float


def evaluation_prompts(
    config: RunConfig,
    evaluation: EvaluationConfig,
    problems: Sequence[Problem],
    token_ids: Callable[[Problem], Sequence[int]],
    policy_version: int,
    attempt: int,
) -> list[Prompt]:
    """The same seeds at every evaluation, so that two policies are compared on the same draws."""
    sampling = config.rollout.sampling
    return [
        Prompt(
            group_id=f"eval-{attempt}-{policy_version}-{index}",
            sequence_number=index,
            purpose="evaluate",
            row=problem.row,
            token_ids=Array.of(token_ids(problem), "<i4"),
            group_size=evaluation.samples_per_prompt,
            temperature=evaluation.temperature,
            max_tokens=sampling.max_tokens,
            stop_token_ids=sampling.stop_token_ids,
            seed=(config.seed + 1 + index * evaluation.samples_per_prompt) % 2**31,
            grader=problem.grader,
            reference=problem.reference,
            options=problem.options,
            pinned_version=policy_version,
        )
        for index, problem in enumerate(problems)
    ]


def evaluate(
    prompts: Sequence[Prompt],
    log_of_issues: IssueLog,
    collector: Collector,
    deadline: Deadline,
    stopping: Callable[[], bool],
) -> Evaluation | None:
    """Issue, wait, count. None when `stopping`. Raises DeadlineExceeded."""
    start = now_s()
    for number, prompt in enumerate(prompts):
        log_of_issues.issue(number, encode(prompt))
    results = collector.evaluation([prompt.group_id for prompt in prompts], deadline, stopping)
    if stopping():
        return None
    report = count(results, prompts[0].pinned_version or 0, len(prompts), now_s() - start)
    EVALUATION_RATIO.labels("avg_at_k").set(report.avg_at_k)
    EVALUATION_RATIO.labels("pass_at_k").set(report.pass_at_k)
    return report


def count(results: Sequence[ScoredGroup], policy_version: int, asked: int, seconds: float) -> Evaluation:
    """Results of another version count as missing. Without any result the ratios are 0."""
    pinned = [result for result in results if _versions(result) <= {policy_version}]
    if len(pinned) < asked:
        log.warning(
            "evaluation of version %d: %d of %d prompts have no result", policy_version, asked - len(pinned), asked
        )
    correct = [[score.verdict == "correct" for score in result.scores] for result in pinned]
    lengths = [len(trajectory) for result in pinned for trajectory in result.group.trajectories]
    return Evaluation(
        policy_version=policy_version,
        avg_at_k=sum(sum(c) / len(c) for c in correct) / max(1, len(correct)),
        pass_at_k=sum(any(c) for c in correct) / max(1, len(correct)),
        k=len(correct[0]) if correct else 0,
        prompts=len(pinned),
        missing=asked - len(pinned),
        mean_tokens=sum(lengths) / max(1, len(lengths)),
        seconds=seconds,
    )


def _versions(result: ScoredGroup) -> set[int]:
    return {span.policy_version for trajectory in result.group.trajectories for span in trajectory.spans}
