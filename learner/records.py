"""What the learner writes down: JSON lines, TensorBoard events, gauges, and at the end the summary's numbers."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from learner.evaluation import Evaluation
from learner.intake.collector import Sampled
from learner.metrics import (
    BASELINE_SHIFT,
    CLIPPED_RATIO,
    ENTROPY_NATS,
    ESS_RATIO,
    GRADIENT_NORM,
    GRADIENT_NORM_LIMIT,
    LEARNING_RATE,
    LEARNING_RATE_FACTOR,
    LOSS,
    MEAN_REWARD,
    MISMATCH_NATS,
    MISMATCH_PART_NATS,
    ONE_WAY_BOUND_RATIO,
    ONE_WAY_ESS_RATIO,
    ONE_WAY_WEIGHT,
    PASS_RATE,
    POLICY_LAG_STEPS,
    REFERENCE_GAP_NATS,
    REFERENCE_VERSION,
    SIGN_FLIPPED_RATIO,
    SKIPPED_OPTIMIZER_STEPS,
    SKIPPED_STEPS,
    TRAINED_TOKENS,
    TRUNCATED_ESS_RATIO,
    TRUNCATED_RATIO,
    ZERO_VARIANCE_RATIO,
)
from learner.publish.replica_group import SyncReport
from learner.ranks import TakenStep
from learner.step.report import StepReport
from services.clock import now_s
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.wire.score import ScoredGroup

NOTHING_COUNTED: dict[str, Any] = {
    "sampled_tokens": 0,
    "sampled_trajectories": 0,
    "trained_tokens": 0,
    "wall_seconds": 0.0,
}
"""`Records.counts` of a run that begins."""


class Records:
    """Of one start of the learner; the files go on where the start before ended."""

    def __init__(self, folder: RunFolder, sampled: Sampled, counts: dict[str, Any], attempt: int) -> None:
        """counts: those of the checkpoint that is continued, or NOTHING_COUNTED."""
        from torch.utils.tensorboard import SummaryWriter

        self._steps, self._syncs = JsonLines(folder.steps), JsonLines(folder.syncs)
        self._evaluations = JsonLines(folder.evaluations)
        self._events = SummaryWriter(str(folder.tensorboard))
        self._sampled, self._attempt = sampled, attempt
        self._trained_tokens = int(counts["trained_tokens"])
        self._wall_before_s = float(counts["wall_seconds"])
        self._start_s: float | None = None
        sampled.tokens = int(counts["sampled_tokens"])
        sampled.trajectories = int(counts["sampled_trajectories"])

    def begin(self) -> None:
        """Training starts now: what came before was start-up."""
        self._start_s = now_s()

    def counts(self) -> dict[str, Any]:
        """What the next start continues from; part of the checkpoint."""
        running_s = now_s() - self._start_s if self._start_s is not None else 0.0
        return {
            "sampled_tokens": self._sampled.tokens,
            "sampled_trajectories": self._sampled.trajectories,
            "trained_tokens": self._trained_tokens,
            "wall_seconds": self._wall_before_s + running_s,
        }

    def step(
        self,
        step: int,
        taken: TakenStep,
        *,
        groups: Sequence[ScoredGroup],
        counts: dict[str, Any],
        reference_version: int,
        lag_window: int,
        waited_s: float,
        seconds: float,
    ) -> None:
        """After every step; step: the policy version it made."""
        report = taken.report
        trained = report.tokens if report.skipped is None else 0
        self._trained_tokens += trained
        TRAINED_TOKENS.inc(trained)
        row = {
            "step": step,
            "attempt": self._attempt,
            **asdict(report),
            "lag_tokens": taken.lag_tokens,
            "reference_version": reference_version,
            "lag_window": lag_window,
            "groups": counts,
            "consumed_groups": [g.group.prompt.sequence_number for g in groups],
            "waited_s": waited_s,
            "seconds": seconds,
            **self.counts(),
        }
        self._steps.write(**row)
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("step", "attempt"):
                self._events.add_scalar(f"step/{name}", value, step)
        _export(report, reference_version)

    def sync(self, report: SyncReport) -> None:
        """After every confirmed broadcast; called from the publisher's thread."""
        self._syncs.write(attempt=self._attempt, **asdict(report))

    def evaluation(self, evaluation: Evaluation) -> None:
        self._evaluations.write(attempt=self._attempt, **asdict(evaluation))
        self._events.add_scalar("evaluation/avg_at_k", evaluation.avg_at_k, evaluation.policy_version)
        self._events.add_scalar("evaluation/pass_at_k", evaluation.pass_at_k, evaluation.policy_version)
        self._events.flush()

    def close(self) -> None:
        self._events.close()
        for lines in (self._steps, self._syncs, self._evaluations):
            lines.close()


def _export(report: StepReport, reference_version: int) -> None:
    REFERENCE_VERSION.set(reference_version)
    MEAN_REWARD.set(report.mean_reward)
    PASS_RATE.set(report.pass_rate)
    LOSS.set(report.loss)
    GRADIENT_NORM.set(report.grad_norm)
    GRADIENT_NORM_LIMIT.set(report.grad_norm_limit)
    LEARNING_RATE.set(report.learning_rate)
    ESS_RATIO.set(report.ess_ratio)
    TRUNCATED_ESS_RATIO.set(report.truncated_ess_ratio)
    LEARNING_RATE_FACTOR.set(report.lr_factor)
    for bound in ("low", "high"):
        for advantage in ("positive", "negative"):
            ONE_WAY_BOUND_RATIO.labels(bound, advantage).set(getattr(report, f"one_way_{bound}_{advantage}"))
    for advantage in ("positive", "negative"):
        ONE_WAY_WEIGHT.labels(advantage).set(getattr(report, f"one_way_mean_{advantage}"))
    ONE_WAY_ESS_RATIO.set(report.one_way_ess_ratio)
    CLIPPED_RATIO.set(report.clipped_fraction)
    SIGN_FLIPPED_RATIO.labels("objective").set(report.sign_flipped_fraction)
    SIGN_FLIPPED_RATIO.labels("distillation").set(report.distillation_flips_fraction)
    TRUNCATED_RATIO.set(math.nan if report.truncated_fraction is None else report.truncated_fraction)
    REFERENCE_GAP_NATS.set(report.reference_gap)
    BASELINE_SHIFT.set(report.mean_baseline_shift)
    ZERO_VARIANCE_RATIO.set(report.zero_variance_fraction)
    ENTROPY_NATS.set(report.entropy)
    MISMATCH_NATS.set(report.mismatch_kl)
    for part in ("engine_mismatch", "before_batch", "within_batch"):
        nats = getattr(report, f"{part}_kl")
        MISMATCH_PART_NATS.labels(part).set(math.nan if nats is None else nats)
    POLICY_LAG_STEPS.observe(report.mean_lag_steps)
    SKIPPED_OPTIMIZER_STEPS.inc(report.skipped_optimizer_steps)
    if report.skipped:
        SKIPPED_STEPS.labels(report.skipped).inc()
