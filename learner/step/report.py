"""What one learner step says about itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from learner.batch.step_batch import StepBatch

SkipReason = Literal["empty", "non_finite_reference", "non_finite_ess", "non_finite_loss", "non_finite_gradient"]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did; the same on every rank. Numbers of a skipped step are nan where they were not reached.

    With several optimizer steps a batch: means over those that changed something, and sums of the counts.
    """

    skipped: SkipReason | None
    """Why the weights did not change; None when they did."""
    optimizer_steps: int
    """That were applied."""
    skipped_optimizer_steps: int
    """That were not, because a number was not finite; with one a batch, that is `skipped`."""
    sequences: int
    """That reached the loss: B."""
    tokens: int
    """Response tokens that reached the loss."""
    mean_reward: float
    """Over every sequence of the groups consumed, zero-variance groups included."""
    pass_rate: float
    """Fraction of those with the verdict `correct`."""
    loss: float
    grad_norm: float
    """Before clipping."""
    grad_norm_limit: float
    """That a longer gradient was cut to."""
    ess_ratio: float
    """Effective sample size over sequences that were not rejected, (0, 1]. Of several optimizer steps, one whose weights were
    not finite counts as 0."""
    truncated_ess_ratio: float
    """The same of weights cut to the cap."""
    lr_factor: float
    learning_rate: float
    """That the step was taken with: the schedule's times lr_factor."""
    mean_lag_steps: float
    p95_lag_steps: float
    max_lag_steps: int
    entropy: float
    """Mean over response tokens, nats, at the sampling temperature."""
    mismatch_kl: float
    """Mean over response tokens of r - 1 - log r with r = current/behavior, nats: estimates KL(behavior || current)."""
    engine_mismatch_kl: float | None
    """The same of proximal/behavior over the tokens that the proximal policy's own weights sampled, so nothing but two
    engines differing; None where there is no such token, or the proximal policy is not known."""
    before_batch_kl: float | None
    """The same of proximal/behavior over all tokens: engines and lag. None where the proximal policy is not known."""
    within_batch_kl: float | None
    """The same of current/proximal: staleness from several optimizer steps on the batch; 0 in the first of them."""
    truncated_fraction: float | None
    """Importance weights beyond the cap: of sequences, or of tokens at the levels `token` and `prefix`. None where the
    objective weighs for itself."""
    mean_importance_ratio: float | None
    """Mean of the same, after truncation, masking or rejection."""
    one_way_mean: float
    """Mean one-way weight over response tokens; 1 for objectives without one."""
    one_way_mean_positive: float
    """The same over those with a positive advantage: below 1 where gains are locked."""
    one_way_mean_negative: float
    one_way_ess_ratio: float
    """ESS ratio of truncated importance weight times mean one-way weight; to look at, it decides nothing."""
    one_way_low_positive: float
    """Of the tokens with a positive advantage, those whose one-way weight is at its lower bound (gain locked)."""
    one_way_low_negative: float
    """The same of those with a negative one."""
    one_way_high_positive: float
    """At the upper bound (alignment accelerated)."""
    one_way_high_negative: float
    clipped_fraction: float
    """Tokens with an advantage and, beyond a clip of the objective, no gradient."""
    sign_flipped_fraction: float
    """Tokens that the objective moves against their advantage, of those that have one."""
    distillation_flips_fraction: float
    """The same, if log reference/current (or teacher/current, their mean) were added to the advantage: what one-way weights
    never do. 0 where neither is scored."""
    reference_gap: float
    """Mean over response tokens of current - reference log-prob, nats; 0 right after a ratchet."""
    mean_baseline_shift: float
    """Mean over groups of |baseline - mean reward|, of the minimum-variance baseline; 0 for others."""
    zero_variance_fraction: float
    """Groups whose rewards were all equal, of those consumed."""
    missing_reference_tokens: int
    """Tokens whose reference log-prob was not finite: with one, the step is skipped."""


_NOT_REACHED: dict[str, float | None] = {
    "loss": math.nan,
    "grad_norm": math.nan,
    "grad_norm_limit": math.nan,
    "ess_ratio": math.nan,
    "truncated_ess_ratio": math.nan,
    "lr_factor": math.nan,
    "learning_rate": math.nan,
    "entropy": math.nan,
    "mismatch_kl": math.nan,
    "engine_mismatch_kl": None,
    "before_batch_kl": None,
    "within_batch_kl": None,
    "truncated_fraction": math.nan,
    "mean_importance_ratio": math.nan,
    "one_way_mean": math.nan,
    "one_way_mean_positive": math.nan,
    "one_way_mean_negative": math.nan,
    "one_way_ess_ratio": math.nan,
    "one_way_low_positive": math.nan,
    "one_way_low_negative": math.nan,
    "one_way_high_positive": math.nan,
    "one_way_high_negative": math.nan,
    "clipped_fraction": math.nan,
    "sign_flipped_fraction": math.nan,
    "distillation_flips_fraction": math.nan,
    "reference_gap": math.nan,
    "mean_baseline_shift": math.nan,
    "missing_reference_tokens": 0,
}


def report(batch: StepBatch, skipped: SkipReason | None, **measured: float | None) -> StepReport:
    """A report of `batch`; numbers that are not given are nan."""
    lag = batch.lag_steps[batch.mask].double()
    return StepReport(
        skipped=skipped,
        optimizer_steps=int(skipped is None),
        skipped_optimizer_steps=int(skipped is not None),
        sequences=batch.counted_sequences,
        tokens=len(lag),
        mean_reward=batch.tally.mean_reward,
        pass_rate=batch.tally.pass_rate,
        zero_variance_fraction=batch.tally.zero_variance_groups / max(1, batch.tally.groups),
        mean_lag_steps=float(lag.mean()) if len(lag) else math.nan,
        p95_lag_steps=float(lag.kthvalue(math.ceil(0.95 * len(lag))).values) if len(lag) else math.nan,
        max_lag_steps=int(lag.max()) if len(lag) else 0,
        **{**_NOT_REACHED, **measured},  # type: ignore[arg-type]
    )


COUNTS = ("optimizer_steps", "skipped_optimizer_steps", "sequences", "tokens", "missing_reference_tokens")
NOT_ALWAYS_KNOWN = (
    "engine_mismatch_kl",
    "before_batch_kl",
    "within_batch_kl",
    "truncated_fraction",
    "mean_importance_ratio",
)
"""Their means are over the optimizer steps that knew."""


def merged(reports: Sequence[StepReport]) -> StepReport:
    """Of the optimizer steps on one batch, in order. One alone is itself."""
    if len(reports) == 1:
        return reports[0]
    applied = [r for r in reports if r.skipped is None]
    looked_at = [r for r in reports if r.skipped in (None, "non_finite_ess")]
    together: dict[str, Any] = {}
    for name in (f.name for f in fields(StepReport)):
        values = [getattr(r, name) for r in reports]
        if name == "skipped":
            together[name] = None if applied else values[0]
        elif name in COUNTS:
            together[name] = sum(values)
        elif name == "max_lag_steps":
            together[name] = max(values)
        elif name == "ess_ratio" and applied:
            together[name] = math.fsum(0.0 if r.skipped == "non_finite_ess" else r.ess_ratio for r in looked_at) / len(
                looked_at
            )
        else:
            of = [getattr(r, name) for r in applied or reports]
            if name in NOT_ALWAYS_KNOWN:
                of = [x for x in of if x is not None]
            together[name] = math.fsum(of) / len(of) if of else None
    return StepReport(**together)
