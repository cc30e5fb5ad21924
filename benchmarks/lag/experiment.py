"""One run of the laboratory: the learner's own step on data of an exact age.

With lag k the batch of step t was sampled by the weights of step t - k, or by the first ones while t < k. Every run of a
task samples and trains on the same number of groups, zero-variance groups included: they are not replaced.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.lag.groups import is_right, responses, scored_groups
from benchmarks.lag.sampler import Sampled
from benchmarks.lag.task import Task, prompts_of
from learner.batch.step_batch import assemble
from learner.control.ratchet import RatchetState, observe
from learner.control.schedule import scheduled_learning_rate
from learner.engine.outgoing import weight_copies
from learner.engine.protocol import TrainEngine
from learner.step.learner_step import learner_step
from learner.step.report import StepReport
from services.config.learner import LearnerConfig
from services.wire.score import ScoredGroup


class Samples(Protocol):
    """sampler.py has the one that samples from a model."""

    def load(self, weights: Sequence[tuple[str, Tensor]]) -> None: ...
    def sample(self, prompts: Tensor, max_tokens: int, random: torch.Generator) -> Sampled: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What is varied, and for how long it runs."""

    lag: int
    seed: int
    group_size: int
    evaluate_every: int
    """Steps between two looks at the held-out problems, one sample each."""
    final_samples: int = 4
    """Samples of each held-out problem at the start and at the end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    reports: list[StepReport]
    accuracy: list[tuple[int, float]]
    """(steps taken, held-out accuracy sampled at temperature 1), the first and the last with more samples."""
    samples: int
    wall_seconds: float


def experiment(
    engine: TrainEngine,
    sampler: Samples,
    task: Task,
    settings: LearnerConfig,
    setting: Setting,
    on_step: Callable[[int, StepReport], None] = lambda step, report: None,
) -> Outcome:
    start = time.perf_counter()
    # Streams of their own, so that how often it is evaluated changes no sample.
    prompt_draw, sample_draw, evaluation_draw = (torch.Generator().manual_seed(setting.seed * 3 + i) for i in range(3))
    order: list[int] = []
    waiting: deque[list[ScoredGroup]] = deque()
    issued = 0

    def issue(version: int) -> None:
        nonlocal issued
        while len(order) < settings.groups_per_step:
            order.extend(torch.randperm(len(task.train), generator=prompt_draw).tolist())
        chosen = [task.train[order.pop(0)] for _ in range(settings.groups_per_step)]
        sampled = sampler.sample(
            prompts_of(chosen).repeat_interleave(setting.group_size, 0), task.response_tokens, sample_draw
        )
        waiting.append(
            scored_groups(chosen, sampled, group_size=setting.group_size, policy_version=version, first_number=issued)
        )
        issued += len(chosen)

    def accuracy(samples: int) -> float:
        asked = [problem for problem in task.heldout for _ in range(samples)]
        given = responses(sampler.sample(prompts_of(asked), task.response_tokens, evaluation_draw))
        return sum(is_right(r, answer) for r, (_, answer) in zip(given, asked, strict=True)) / len(asked)

    sampler.load(weight_copies(engine, torch.float32))
    curve, reports, ratchet = [(0, accuracy(setting.final_samples))], [], RatchetState()
    for _ in range(min(setting.lag, settings.steps)):
        issue(0)
    for version in range(settings.steps):
        if version + setting.lag < settings.steps:
            issue(version)
        batch = assemble(waiting.popleft(), version, settings)
        rate = scheduled_learning_rate(settings.optimizer, version, settings.steps)
        report = learner_step(engine, batch, settings, learning_rate=rate)
        if len(batch) and report.max_lag_steps != min(version, setting.lag):
            raise AssertionError(f"step {version} trained on data {report.max_lag_steps} steps old, not {setting.lag}")
        if settings.reference.type == "ratchet" and report.skipped is None:
            ratchet, verdict = observe(
                settings.reference,
                ratchet,
                step=version + 1,
                pass_rate=report.pass_rate,
                optimizer_steps=report.optimizer_steps,
            )
            if verdict == "swap":
                engine.ratchet_reference()
            elif verdict == "roll_back":
                engine.roll_back_reference()
        reports.append(report)
        on_step(version + 1, report)
        sampler.load(weight_copies(engine, torch.float32))
        if version + 1 == settings.steps:
            curve.append((version + 1, accuracy(setting.final_samples)))
        elif (version + 1) % setting.evaluate_every == 0:
            curve.append((version + 1, accuracy(1)))
    return Outcome(reports, curve, issued * setting.group_size, time.perf_counter() - start)


def collapsed_at(accuracy: Sequence[tuple[int, float]], fraction: float = 0.5) -> int | None:
    """The step of the first look from which accuracy stays below this fraction of the highest before, to the end."""
    highest, fallen = 0.0, None
    for step, value in accuracy:
        highest = max(highest, value)
        if value >= fraction * highest:
            fallen = None
        elif fallen is None:
            fallen = step
    return fallen
