"""Held-out accuracy at a pinned policy version: avg@k and pass@k.

The learner waits for the results before it publishes other weights, so every token is sampled under the version that is
reported; a result of another version is left out and counted as missing.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from learner.intake.collector import Collector
from learner.intake.issuer import PromptSource
from learner.intake.room import Room
from learner.metrics import EVALUATION_RATIO, SOURCE_EVALUATION_RATIO
from services.clock import Deadline, now_s
from services.config import RunConfig
from services.config.prompts import EvaluationConfig
from services.streams import IssueLog
from services.streams.redis_connection import ServerFull
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
    sources: dict[str, "SourceFigures"] = field(default_factory=dict)
    """The same figures of each source, where there are several."""


@dataclass(frozen=True)
class SourceFigures:
    """One source's part of an evaluation. The fields mean what they mean of the whole."""

    avg_at_k: float
    pass_at_k: float
    prompts: int
    missing: int
    mean_tokens: float


def evaluation_prompts(
    config: RunConfig,
    evaluation: EvaluationConfig,
    sources: Sequence[PromptSource],
    policy_version: int,
    attempt: int,
) -> list[Prompt]:
    """The prompts of one evaluation, source after source, with the same seeds each time, so that two policies are compared on the
    same draws. sources: in the order of evaluation.prompts.each."""
    asked = [
        (source, settings, problem)
        for source, settings in zip(sources, evaluation.prompts.each, strict=True)
        for problem in source.problems
    ]
    sampling = config.rollout.sampling
    return [
        Prompt(
            group_id=f"eval-{attempt}-{policy_version}-{index}",
            sequence_number=index,
            purpose="evaluate",
            row=problem.row,
            source=problem.source,
            token_ids=Array.of(source.token_ids(problem), "<i4"),
            group_size=evaluation.samples_per_prompt,
            temperature=evaluation.temperature if settings.temperature is None else settings.temperature,
            max_tokens=sampling.max_tokens if settings.max_tokens is None else settings.max_tokens,
            stop_token_ids=sampling.stop_token_ids,
            stop=sampling.stop,
            keep_special_tokens=sampling.keep_special_tokens,
            seed=(config.seed + 1 + index * evaluation.samples_per_prompt) % 2**31,
            grader=problem.grader,
            reference=problem.reference,
            options=problem.options,
            problem=problem.prompt if config.environment else None,
        )
        for index, (source, settings, problem) in enumerate(asked)
    ]


@dataclass(frozen=True)
class HeldOut:
    """What is evaluated on: the problems of each source, and a numbered log for the prompts of each evaluation."""

    settings: EvaluationConfig
    sources: Sequence[PromptSource]
    """In the order of evaluation.prompts.each."""
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
            held_out.sources,
            policy_version=policy_version,
            attempt=held_out.attempt,
        )
        deadline = Deadline.after(self._config.deadlines.evaluation_s, "evaluation results")
        start = now_s()
        issue_log, room = held_out.issue_log(policy_version), Room()

        def issue() -> None:
            """Issue all of them, at the beginning and again when the stream server has lost them, or had no room for them."""
            if issue_log.issued_count() < len(prompts):
                try:
                    issue_log.issue_many(0, [encode(prompt) for prompt in prompts])
                except ServerFull as full:
                    room.refused(full)
                    return
                room.admitted()

        group_ids = [prompt.group_id for prompt in prompts]
        results = self._collector.evaluation(group_ids, deadline, self._replicas.should_stop, issue)
        if self._replicas.should_stop():
            return None
        evaluation = count(results, policy_version, prompts, now_s() - start)
        EVALUATION_RATIO.labels("avg_at_k").set(evaluation.avg_at_k)
        EVALUATION_RATIO.labels("pass_at_k").set(evaluation.pass_at_k)
        for name, figures in evaluation.sources.items():
            SOURCE_EVALUATION_RATIO.labels(name, "avg_at_k").set(figures.avg_at_k)
            SOURCE_EVALUATION_RATIO.labels(name, "pass_at_k").set(figures.pass_at_k)
        return evaluation


def count(results: Sequence[ScoredGroup], policy_version: int, asked: Sequence[Prompt], seconds: float) -> Evaluation:
    """Count the results of one evaluation. asked: the prompts issued. seconds: how long it took.

    Results of another version count as missing. Without any result the ratios and the length are nan: nothing was measured.
    """
    pinned = [result for result in results if _versions(result) <= {policy_version}]
    whole = _figures(pinned, len(asked))
    if whole.missing:
        log.warning(
            "evaluation of version %d: %d of %d prompts have no result", policy_version, whole.missing, len(asked)
        )
    per_source = Counter(prompt.source for prompt in asked if prompt.source)
    return Evaluation(
        policy_version=policy_version,
        avg_at_k=whole.avg_at_k,
        pass_at_k=whole.pass_at_k,
        k=len(pinned[0].scores) if pinned else 0,
        prompts=whole.prompts,
        missing=whole.missing,
        mean_tokens=whole.mean_tokens,
        seconds=seconds,
        sources={
            name: _figures([result for result in pinned if result.group.prompt.source == name], number)
            for name, number in per_source.items()
        },
    )


def _figures(pinned: Sequence[ScoredGroup], asked: int) -> SourceFigures:
    """asked: number of prompts issued."""
    correct = [[score.verdict == "correct" for score in result.scores] for result in pinned]
    lengths = [len(trajectory) for result in pinned for trajectory in result.group.trajectories]
    return SourceFigures(
        avg_at_k=_mean([sum(c) / len(c) for c in correct]),
        pass_at_k=_mean([any(c) for c in correct]),
        prompts=len(pinned),
        missing=asked - len(pinned),
        mean_tokens=_mean(lengths),
    )


def _mean(values: Sequence[float]) -> float:
    """nan of nothing."""
    return sum(values) / len(values) if values else math.nan


def _versions(result: ScoredGroup) -> set[int]:
    return {span.policy_version for trajectory in result.group.trajectories for span in trajectory.spans}
