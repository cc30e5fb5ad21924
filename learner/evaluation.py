"""Held-out accuracy at a pinned policy version: avg@k and pass@k.

The learner waits for the results before it publishes other weights, so every token is sampled under the version that is
reported; a result of another version is left out and counted as missing.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """One evaluation. A response is correct if its verdict is `correct`; for graders that answer yes or no that is a reward
    of 1."""

    policy_version: int
    avg_at_k: float
    """Mean over the prompts of the fraction of their k responses that are correct."""
    pass_at_k: float
    """Fraction of the prompts with at least one correct response among k."""
    k: int
    prompts: int
    missing: int
    """Number of prompts without a result: dead, or sampled under another version."""
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
    """The prompts of one evaluation, with the same seeds each time, so that two policies are compared on the same draws."""
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
            stop=sampling.stop,
            keep_special_tokens=sampling.keep_special_tokens,
            seed=(config.seed + 1 + index * evaluation.samples_per_prompt) % 2**31,
            grader=problem.grader,
            reference=problem.reference,
            options=problem.options,
        )
        for index, problem in enumerate(problems)
    ]


@dataclass(frozen=True)
class HeldOut:
    """What is evaluated on: the problems, their tokens, and a numbered log for the prompts of each evaluation."""

    settings: EvaluationConfig
    problems: Sequence[Problem]
    token_ids: Callable[[Problem], Sequence[int]]
    issue_log: Callable[[int], IssueLog]
    """Maps a policy version to a log that nothing was issued to yet."""
    attempt: int
    """Counts the starts of the learner: results that an earlier start asked for are not taken for ours."""


class Replicas(Protocol):
    """What an evaluation has to know of the replicas; the weight publisher knows it."""

    def wait(self) -> None:
        """Return once every live replica samples under the version published last."""

    def should_stop(self) -> bool:
        """Whether the run was asked to stop. Raises what keeps weights from the replicas, if anything does."""


class Evaluator:
    """Evaluates a policy version when it is due. Lives on rank 0."""

    def __init__(self, config: RunConfig, held_out: HeldOut, collector: Collector, replicas: Replicas) -> None:
        self._config = config
        self._held_out = held_out
        self._collector = collector
        self._replicas = replicas

    def is_due(self, policy_version: int, evaluated_version: int | None, *, last: bool = False) -> bool:
        """Whether this version is to be evaluated and has not been. last: it is, whatever the period."""
        return evaluated_version != policy_version and (
            last or policy_version % self._held_out.settings.every_steps == 0
        )

    def evaluate(self, policy_version: int) -> Evaluation | None:
        """Issue the prompts, wait for the results and count them. Returns None if the run was asked to stop.

        policy_version: published last. Raises DeadlineExceeded, or the publisher's fault.

        Waits for: the replicas to hold this version, then the results of every prompt.
        Until: what `WeightPublisher.wait` says, then deadlines.evaluation_s.
        Ended by: the last result, dead groups included, the stop signal, the publisher's fault, or the deadline.
        Metric: ratchet_waiting{room="learner", awaiting="weight confirmations"}, then awaiting="evaluation".
        """
        self._replicas.wait()
        held_out = self._held_out
        prompts = evaluation_prompts(
            self._config,
            held_out.settings,
            held_out.problems,
            held_out.token_ids,
            policy_version=policy_version,
            attempt=held_out.attempt,
        )
        deadline = Deadline.after(self._config.deadlines.evaluation_s, "evaluation results")
        start = now_s()
        issue_log = held_out.issue_log(policy_version)

        def issue() -> None:
            """Issue all of them, at the beginning and again when the stream server has lost them."""
            if issue_log.issued_count() < len(prompts):
                for number, prompt in enumerate(prompts):
                    issue_log.issue(number, encode(prompt))

        group_ids = [prompt.group_id for prompt in prompts]
        results = self._collector.evaluation(group_ids, deadline, self._replicas.should_stop, issue)
        if self._replicas.should_stop():
            return None
        evaluation = count(results, policy_version, len(prompts), now_s() - start)
        EVALUATION_RATIO.labels("avg_at_k").set(evaluation.avg_at_k)
        EVALUATION_RATIO.labels("pass_at_k").set(evaluation.pass_at_k)
        return evaluation


def count(results: Sequence[ScoredGroup], policy_version: int, asked: int, seconds: float) -> Evaluation:
    """Count the results of one evaluation. asked: number of prompts issued. seconds: how long it took.

    Results of another version count as missing. Without any result the ratios and the length are nan: nothing was measured.
    """
    pinned = [result for result in results if _versions(result) <= {policy_version}]
    if len(pinned) < asked:
        log.warning(
            "evaluation of version %d: %d of %d prompts have no result", policy_version, asked - len(pinned), asked
        )
    correct = [[score.verdict == "correct" for score in result.scores] for result in pinned]
    lengths = [len(trajectory) for result in pinned for trajectory in result.group.trajectories]
    return Evaluation(
        policy_version=policy_version,
        avg_at_k=_mean([sum(c) / len(c) for c in correct]),
        pass_at_k=_mean([any(c) for c in correct]),
        k=len(correct[0]) if correct else 0,
        prompts=len(pinned),
        missing=asked - len(pinned),
        mean_tokens=_mean(lengths),
        seconds=seconds,
    )


def _mean(values: Sequence[float]) -> float:
    """nan of nothing."""
    return sum(values) / len(values) if values else math.nan


def _versions(result: ScoredGroup) -> set[int]:
    return {span.policy_version for trajectory in result.group.trajectories for span in trajectory.spans}
