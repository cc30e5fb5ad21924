"""What one learner step says about itself. Each figure is declared once, and reaches everything from here.

A field of `StepReport` is a key of steps.jsonl and a scalar of TensorBoard (learner/records.py). Its `Figure` says what
becomes of it over several optimizer steps, and which metric it sets. Its default is its value where a step ends before it
is measured. To add a figure: a field here, and its value where it is measured (learner/step/measure.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args

from prometheus_client import Counter, Gauge

from learner.batch.sift import GroupDrop, SequenceDrop
from learner.batch.step_batch import StepBatch
from learner.step.figure import (
    Figure,
    counter,
    first_unless_applied,
    gauge,
    largest,
    mean_or_zero,
    of_the_batch,
    total,
)

SkipReason = Literal["empty", "non_finite_reference", "non_finite_ess", "non_finite_loss", "non_finite_gradient"]

SKIPPED_STEPS = Counter(
    "ratchet_learner_skipped_steps",
    "Steps that changed nothing because a value was not finite, by reason.",
    ["reason"],
)
DROPPED_SEQUENCES = Counter(
    "ratchet_learner_dropped_sequences", "Sequences left out of their group, by reason.", ["reason"]
)
ONE_WAY_WEIGHT = Gauge(
    "ratchet_learner_one_way_weight",
    "Mean one-way weight of the last step's tokens with that sign of advantage.",
    ["advantage"],
)
ONE_WAY_BOUND = Gauge(
    "ratchet_learner_one_way_bound_ratio",
    "Fraction of the last step's tokens with that sign of advantage whose one-way weight is at that bound, 0..1.",
    ["bound", "advantage"],
)
SIGN_FLIPPED = Gauge(
    "ratchet_learner_sign_flipped_ratio",
    "Fraction of the last step's tokens that are moved against their advantage, by the objective or if distillation were "
    "added to it, 0..1.",
    ["by"],
)
MISMATCH_PART = Gauge(
    "ratchet_learner_mismatch_part_nats",
    "Parts of the mismatch in the last step: two engines with the same weights (engine_mismatch), engines and lag together "
    "(before_batch), several optimizer steps on one batch (within_batch); in nats.",
    ["part"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one learner step did; the same on every rank.

    With several optimizer steps a batch, figures are means over those that were applied unless the field says otherwise.
    """

    skipped: Annotated[
        SkipReason | None,
        Figure(SKIPPED_STEPS, merge=first_unless_applied),
    ]
    """Why the weights did not change; None when they did."""
    optimizer_steps: Annotated[int, Figure(merge=total)]
    """Number of optimizer steps that were applied."""
    skipped_optimizer_steps: Annotated[
        int,
        counter(
            "ratchet_learner_skipped_optimizer_steps",
            "Optimizer steps that were not applied; a learner step may have several optimizer steps.",
            merge=total,
        ),
    ]
    """Number of optimizer steps that were not applied because a value was not finite."""
    sequences: Annotated[int, Figure(merge=total)]
    """Number of sequences that reached the loss, B."""
    tokens: Annotated[int, Figure(merge=total)]
    """Number of response tokens that reached the loss."""

    # What was consumed for the step, whether or not it reached the loss

    gathered_groups: Annotated[int, Figure(merge=of_the_batch)]
    """Groups consumed for the step, dropped ones included. The metric is ratchet_learner_groups, by outcome."""
    gathered_sequences: Annotated[
        int,
        counter(
            "ratchet_learner_gathered_sequences",
            "Sequences consumed for a step, dropped ones included.",
            merge=of_the_batch,
        ),
    ]
    """Sequences of those groups."""
    dropped_groups: Annotated[dict[GroupDrop, int], Figure(merge=of_the_batch)]
    """Groups that did not reach the loss, by reason. The metric is ratchet_learner_groups, by outcome."""
    dropped_sequences: Annotated[
        dict[SequenceDrop, int],
        Figure(DROPPED_SEQUENCES, merge=of_the_batch),
    ]
    """Sequences left out of their group, by reason."""
    masked_tokens: Annotated[
        int,
        counter(
            "ratchet_learner_masked_tokens",
            'Response tokens more than learner.max_lag versions away that stale_tokens = "mask" left out of the loss.',
            merge=of_the_batch,
        ),
    ]
    """Tokens more than max_lag versions away, left out of the loss under `stale_tokens = "mask"`."""
    mean_reward: Annotated[
        float,
        gauge(
            "ratchet_learner_reward_mean",
            "Mean reward of the groups of the last step, those without variance included.",
        ),
    ]
    """Mean over every sequence consumed, those of zero-variance groups included: of the verifier's rewards."""
    mean_shaped_reward: Annotated[
        float,
        gauge(
            "ratchet_learner_shaped_reward_mean",
            "Mean reward after shaping (learner.shaping) of the groups of the last step, those without variance included.",
        ),
    ]
    """The same of the rewards that advantages are taken of: shaped by learner.shaping."""
    pass_rate: Annotated[
        float,
        gauge("ratchet_learner_pass_ratio", "Fraction of correct responses in the groups of the last step, 0..1."),
    ]
    """Fraction of those sequences with the verdict `correct`."""
    mean_response_tokens: Annotated[
        float,
        gauge(
            "ratchet_learner_response_tokens_mean",
            "Mean length of the responses in the groups of the last step, in tokens.",
        ),
    ]
    """Mean number of response tokens of those sequences, those left out of the loss included."""
    cut_fraction: Annotated[
        float,
        gauge(
            "ratchet_learner_cut_ratio",
            "Fraction of the responses in the groups of the last step that max_tokens cut, 0..1.",
        ),
    ]
    """Fraction of those sequences that `rollout.sampling.max_tokens` cut."""
    mean_grading_s: Annotated[
        float,
        gauge(
            "ratchet_learner_grading_seconds",
            "Mean seconds that a verifier took to grade one response of the last step, its wait in the queue not counted.",
        ),
    ]
    """Mean time that a verifier took to grade one of those sequences, in seconds."""
    zero_variance_fraction: Annotated[
        float,
        gauge(
            "ratchet_learner_zero_variance_ratio",
            "Fraction of the groups of the last step whose rewards are all equal, 0..1.",
        ),
    ]
    """Fraction of the groups consumed whose rewards are all equal."""

    # Staleness

    mean_lag_steps: Annotated[
        float,
        gauge(
            "ratchet_learner_policy_lag_mean_steps",
            "Mean lag in learner steps of the last step's tokens that reached the loss.",
        ),
    ]
    """Mean lag over the tokens that reached the loss."""
    p95_lag_steps: Annotated[
        float,
        gauge(
            "ratchet_learner_policy_lag_p95_steps",
            "95 % of the last step's tokens have at most this lag, in learner steps.",
        ),
    ]
    """95 % of those tokens have at most this lag."""
    max_lag_steps: Annotated[
        int,
        gauge(
            "ratchet_learner_policy_lag_max_steps",
            "Largest lag of the last step's tokens, in learner steps.",
            merge=largest,
        ),
    ]
    """Largest lag of those tokens."""

    # The step

    loss: Annotated[float, gauge("ratchet_learner_loss", "Loss of the last step.")] = math.nan
    """The value that was differentiated, summed over ranks."""
    grad_norm: Annotated[
        float,
        gauge("ratchet_learner_gradient_norm", "Euclidean norm of the last step's gradient before it was cut."),
    ] = math.nan
    """Before clipping."""
    grad_norm_limit: Annotated[
        float,
        gauge("ratchet_learner_gradient_norm_limit", "Norm that the last step's gradient was cut to if longer."),
    ] = math.nan
    """The norm that a longer gradient was cut to."""
    ess_ratio: Annotated[
        float,
        gauge(
            "ratchet_learner_ess_ratio",
            "Effective sample size over the number of sequences, last step, 0..1.",
            merge=mean_or_zero,
        ),
    ] = math.nan
    """Effective sample size over the number of sequences that were not rejected, (0, 1]. Among several optimizer steps, one
    whose weights were not finite counts as 0."""
    truncated_ess_ratio: Annotated[
        float,
        gauge(
            "ratchet_learner_truncated_ess_ratio",
            "Effective sample size over the number of sequences, of importance weights cut to their cap, last step, 0..1.",
        ),
    ] = math.nan
    """The same of weights cut to the cap."""
    lr_factor: Annotated[
        float,
        gauge(
            "ratchet_learner_learning_rate_factor",
            "Factor by which the ESS rule multiplied the last step's learning rate.",
        ),
    ] = math.nan
    """The ESS rule's factor on the learning rate."""
    learning_rate: Annotated[
        float,
        gauge("ratchet_learner_learning_rate", "Learning rate of the last step, ESS factor included."),
    ] = math.nan
    """The rate that the step was taken with: the schedule's times lr_factor."""

    # Policies

    entropy: Annotated[
        float, gauge("ratchet_learner_entropy_nats", "Mean entropy of a response token in the last step, in nats.")
    ] = math.nan
    """Mean over response tokens, nats, at the sampling temperature."""
    mismatch_kl: Annotated[
        float,
        gauge(
            "ratchet_learner_mismatch_nats",
            "Estimated KL divergence of the behavior policy from the current policy per token in the last step, in nats.",
        ),
    ] = math.nan
    """Mean over response tokens of r - 1 - log r with r = current/behavior, nats: estimates KL(behavior || current)."""
    engine_mismatch_kl: Annotated[float | None, Figure(MISMATCH_PART, ("engine_mismatch",))] = None
    """The same of proximal/behavior over the sequences that the proximal policy's own weights sampled from their first token
    on: what differs there is the two engines. None where there is no such sequence, or the proximal policy is not known."""
    before_batch_kl: Annotated[float | None, Figure(MISMATCH_PART, ("before_batch",))] = None
    """The same of proximal/behavior over all tokens: engines and lag. None where the proximal policy is not known."""
    within_batch_kl: Annotated[float | None, Figure(MISMATCH_PART, ("within_batch",))] = None
    """The same of current/proximal: staleness from several optimizer steps on the batch; 0 in the first of them."""
    truncated_fraction: Annotated[
        float | None,
        gauge("ratchet_learner_truncated_ratio", "Fraction of importance weights beyond the cap, last step, 0..1."),
    ] = math.nan
    """Fraction of importance weights beyond the cap: of sequences, or of tokens at the levels `token` and `prefix`. None
    where the objective weighs for itself."""
    mean_importance_ratio: Annotated[float | None, Figure()] = math.nan
    """Mean of the same weights, after truncation, masking or rejection."""
    reference_gap: Annotated[
        float,
        gauge(
            "ratchet_learner_reference_gap_nats", "Mean of log current/reference over tokens in the last step, in nats."
        ),
    ] = math.nan
    """Mean over response tokens of current - reference log-prob, nats; 0 right after a ratchet."""

    # One-way weights

    one_way_mean: Annotated[float, Figure()] = math.nan
    """Mean one-way weight over response tokens; 1 for objectives without one."""
    one_way_mean_positive: Annotated[float, Figure(ONE_WAY_WEIGHT, ("positive",))] = math.nan
    """The same over tokens with a positive advantage: below 1 where gains are locked."""
    one_way_mean_negative: Annotated[float, Figure(ONE_WAY_WEIGHT, ("negative",))] = math.nan
    """The same over tokens with a negative advantage."""
    one_way_ess_ratio: Annotated[
        float,
        gauge(
            "ratchet_learner_one_way_ess_ratio",
            "Effective sample size over the number of sequences, of truncated importance weight times mean one-way weight, "
            "last step, 0..1.",
        ),
    ] = math.nan
    """ESS ratio of truncated importance weight times mean one-way weight. It decides nothing."""
    one_way_low_positive: Annotated[float, Figure(ONE_WAY_BOUND, ("low", "positive"))] = math.nan
    """Fraction of the tokens with a positive advantage whose one-way weight is at its lower bound (gain locked)."""
    one_way_low_negative: Annotated[float, Figure(ONE_WAY_BOUND, ("low", "negative"))] = math.nan
    """The same of tokens with a negative advantage."""
    one_way_high_positive: Annotated[float, Figure(ONE_WAY_BOUND, ("high", "positive"))] = math.nan
    """Fraction of the tokens with a positive advantage whose one-way weight is at its upper bound (alignment accelerated)."""
    one_way_high_negative: Annotated[float, Figure(ONE_WAY_BOUND, ("high", "negative"))] = math.nan
    """The same of tokens with a negative advantage."""

    # What the objective did to tokens

    clipped_fraction: Annotated[
        float,
        gauge(
            "ratchet_learner_clipped_ratio",
            "Fraction of the last step's tokens with an advantage that have no gradient, being beyond a clip, 0..1.",
        ),
    ] = math.nan
    """Fraction of the tokens with an advantage that have no gradient, being beyond a clip of the objective."""
    sign_flipped_fraction: Annotated[float, Figure(SIGN_FLIPPED, ("objective",))] = math.nan
    """Fraction of the tokens with an advantage that the objective moves against it."""
    distillation_flips_fraction: Annotated[float, Figure(SIGN_FLIPPED, ("distillation",))] = math.nan
    """The same, if log reference/current (or teacher/current, their mean) were added to the advantage, which is what one-way
    weights never do. 0 where neither is scored."""
    mean_baseline_shift: Annotated[
        float,
        gauge(
            "ratchet_learner_baseline_shift",
            "Mean distance of the minimum-variance baseline from the mean reward of its group, last step, in reward.",
        ),
    ] = math.nan
    """Mean over groups of |baseline - mean reward|; 0 for a baseline that needs no gradient norms."""
    missing_reference_tokens: Annotated[int, Figure(merge=total)] = 0
    """Number of tokens whose reference or teacher log-prob was not finite: with one, the step is skipped."""


for _counter, _reasons in ((SKIPPED_STEPS, SkipReason), (DROPPED_SEQUENCES, SequenceDrop)):
    for _reason in get_args(_reasons):
        _counter.labels(_reason)  # the first one is then an increase

FIGURES: dict[str, Figure] = {
    f.name: next(mark for mark in get_args(f.type) if isinstance(mark, Figure)) for f in fields(StepReport)
}
"""By field, in order."""


def report(batch: StepBatch, skipped: SkipReason | None, **measured: float | None) -> StepReport:
    """A report of one optimizer step on `batch`. measured: figures by name; the others keep their defaults."""
    lag = batch.lag_steps[batch.mask].double()
    tally = batch.tally
    return StepReport(
        skipped=skipped,
        optimizer_steps=int(skipped is None),
        skipped_optimizer_steps=int(skipped is not None),
        sequences=batch.counted_sequences,
        tokens=len(lag),
        gathered_groups=tally.groups,
        gathered_sequences=tally.sequences,
        dropped_groups=tally.dropped_groups,
        dropped_sequences=tally.dropped_sequences,
        masked_tokens=tally.masked_tokens,
        mean_reward=tally.mean_reward,
        mean_shaped_reward=tally.mean_shaped_reward,
        pass_rate=tally.pass_rate,
        mean_response_tokens=tally.mean_response_tokens,
        cut_fraction=tally.cut_fraction,
        mean_grading_s=tally.mean_grading_s,
        zero_variance_fraction=tally.zero_variance_groups / max(1, tally.groups),
        mean_lag_steps=float(lag.mean()) if len(lag) else math.nan,
        p95_lag_steps=float(lag.kthvalue(math.ceil(0.95 * len(lag))).values) if len(lag) else math.nan,
        max_lag_steps=int(lag.max()) if len(lag) else 0,
        **measured,  # type: ignore[arg-type]
    )


def merged(reports: Sequence[StepReport]) -> StepReport:
    """The report of a learner step from those of its optimizer steps, in order. One alone is returned as it is."""
    if len(reports) == 1:
        return reports[0]
    return StepReport(**{name: figure.merge(reports, name) for name, figure in FIGURES.items()})


def export(report: StepReport) -> None:
    """Set the metric of every figure."""
    for name, figure in FIGURES.items():
        figure.export(getattr(report, name))
