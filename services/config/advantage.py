"""[learner.advantage] and [learner.importance]: what a response counts for, and by how much."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Strict
from services.config.effect import OnlyWith

OF_REWARDS = ("mean", "leave_one_out", "length_weighted", "median", "log_mean_exp")
"""Baselines that turns may have beside them: they follow from the rewards of a group, all of which count."""
PLAIN = ("none", "sample_std", "population_std")
"""Divisors that may stand under values below 0 and in groups of any size."""


class TurnsConfig(Strict):
    """Advantages of single turns, in a conversation with an environment that gives rewards turn by turn: what a turn earned
    from then on, minus the mean of the turns with the same number in its group, plus the advantage of the whole conversation
    (arXiv:2505.11821, our reading). Without this section every token of a conversation has the same advantage."""

    discount: float = Field(default=1.0, ge=0.0, le=1.0)
    """What a later turn's reward counts for in an earlier one, for each turn between them. 1: in full. 0: each turn has only its
    own."""
    outcome_weight: float = Field(default=1.0, ge=0.0)
    """What the advantage of the whole conversation is multiplied by before it is added. 0 where the grader is "environment" and
    its rewards are all that counts: they are in the turns already."""


class AdvantageConfig(Strict):
    """How rewards become advantages within a group."""

    baseline: Literal[
        "mean",
        "leave_one_out",
        "length_weighted",
        "median",
        "log_mean_exp",
        "positives",
        "minimum_variance",
        "minimum_variance_exact",
    ] = "minimum_variance"
    """The number subtracted from each reward of a group. mean: the group's mean. leave_one_out: the mean of the other
    responses. length_weighted: the mean weighted by response length. median: needs an odd group size; the pivot itself is
    left out. log_mean_exp: tau log mean exp(R / tau). positives: no baseline; only rewards above `positive_above` count,
    equally within their group. minimum_variance: the off-policy optimal baseline (arXiv:2602.17616), with a proxy for the
    gradient norms computed from the logits. minimum_variance_exact: with the norms themselves, at the cost of one backward
    per sequence and two more gradients in memory; use it to check the proxy."""
    normalize: Literal["none", "sample_std", "population_std", "mean", "median_deviation"] = "none"
    """What advantages are divided by. none: nothing. sample_std: the group's sample standard deviation plus 1e-6 (GRPO).
    population_std: its population standard deviation. mean: its mean reward (MaxRL), which gives hard prompts more weight; for
    rewards of at least 0, and a group whose mean is not above 0 has no advantages. median_deviation: the median distance
    from the median plus 1e-3, times the fraction of rewards that differ from the median (MC-GRPO's released code); needs
    the baseline median."""
    tau: Annotated[float, OnlyWith(".baseline", "log_mean_exp")] = Field(default=1.0, gt=0.0)
    """Temperature of the baseline log_mean_exp, in units of reward; the other baselines ignore it."""
    positive_above: Annotated[float, OnlyWith(".baseline", "positives")] = 0.5
    """Rewards above this count as positive under the baseline positives; the other baselines ignore it."""
    turns: TurnsConfig | None = None
    """Advantages of single turns. Needs a baseline of all rewards: mean, leave_one_out, length_weighted, median, log_mean_exp."""

    @model_validator(mode="after")
    def turns_are_known_before_the_policy_scores(self) -> Self:
        if self.turns is None:
            return self
        if self.baseline not in OF_REWARDS:
            raise ValueError(
                f'turns needs a baseline that follows from rewards alone, baseline = "mean" for example, not "{self.baseline}"'
            )
        if self.normalize not in PLAIN:
            raise ValueError(
                f'turns needs normalize = "none", "sample_std" or "population_std", not "{self.normalize}"'
            )
        return self

    @model_validator(mode="after")
    def median_deviations_are_from_the_median(self) -> Self:
        if self.normalize == "median_deviation" and self.baseline != "median":
            raise ValueError(
                f'normalize = "median_deviation" needs baseline = "median", not "{self.baseline}"; set it, or use "sample_std"'
            )
        return self


WEIGHED = OnlyWith(".level", "token", "sequence", "prefix")


class ImportanceConfig(Strict):
    """Importance weights current/behavior, or proximal/behavior for the clipped objectives."""

    level: Literal["token", "sequence", "prefix", "none"] = "sequence"
    """Tokens over which ratios are multiplied: the token alone, the whole sequence, or the sequence up to the token. none:
    every weight is 1."""
    action: Annotated[Literal["truncate", "mask", "reject"], WEIGHED] = "truncate"
    """What happens to weights outside the bounds. truncate: they are cut to the cap. mask: their tokens are left out.
    reject: their whole sequences are left out. Denominators still count what is left out."""
    cap: Annotated[float, WEIGHED] = Field(default=8.0, ge=1.0, le=1e30)
    """Upper bound of a weight. Lower it when a few sequences dominate a step (a low ESS ratio); that adds bias."""
    floor: Annotated[float, WEIGHED] = Field(default=0.0, ge=0.0, le=1.0)
    """Lower bound of a weight, for mask and reject; truncation has none."""

    @model_validator(mode="after")
    def truncation_has_no_floor(self) -> Self:
        if self.action == "truncate" and self.floor > 0:
            raise ValueError(f'floor = {self.floor} has no effect with action = "truncate"; use mask or reject')
        return self
