"""The estimators that are compared, and how far their estimates of one gradient scatter.

An estimator is known by its products: X [G, G], the inner products of what it makes of each of G groups. Everything below
follows from them, so no gradient is held here. G independent groups; a step's gradient is the mean over its groups.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.baseline.gradients import Gradients
from learner.objective.advantage import advantages, group_advantages
from learner.objective.baseline import group_mean, minimum_variance_baseline
from services.config.advantage import AdvantageConfig

YARDSTICK = "group mean"
"""What all others are a ratio to."""
RESAMPLINGS = 1000


def advantages_of(found: Gradients) -> dict[str, Tensor]:
    """By baseline, float64 [N]. A group with equal rewards has none, but without a baseline."""
    reward, group, tokens = found.reward, found.group, torch.ones_like(found.group)

    def minimum_variance(log_norm: Tensor) -> Tensor:
        return advantages(reward, minimum_variance_baseline(reward, log_norm, group), group, "none").double()

    return {
        YARDSTICK: group_advantages(reward, group, tokens, AdvantageConfig(baseline="mean")).double(),
        "leave one out": group_advantages(reward, group, tokens, AdvantageConfig(baseline="leave_one_out")).double(),
        "minimum variance, proxy": minimum_variance(found.log_proxy),
        "minimum variance, exact": minimum_variance(found.log_norm),
        "none": reward,
    }


def mean_baselines(advantage: Mapping[str, Tensor], found: Gradients) -> dict[str, float]:
    """What is subtracted, the mean over groups whose rewards differ."""
    wrong = found.mixed & (found.reward == 0)
    groups = found.group[wrong].unique()
    subtracted = {name: group_mean(torch.where(wrong, -one, 0.0), found.group) for name, one in advantage.items()}
    share = group_mean(wrong.double(), found.group)
    return {name: float((one[groups] / share[groups]).mean()) for name, one in subtracted.items()}


def right_to_wrong(found: Gradients) -> float:
    """Mean squared norm of right responses to that of wrong ones, in groups whose rewards differ."""
    squares, right = found.log_norm.exp(), found.reward > 0
    return float(squares[found.mixed & right].mean() / squares[found.mixed & ~right].mean())


def coefficients(advantage: Tensor, found: Gradients) -> Tensor:
    """What each sum counts in the estimate of each group, float64 [G, K]."""
    whole = torch.zeros(int(found.group.max()) + 1, len(found.sums), dtype=torch.float64)
    counts = found.sum_of >= 0
    whole[found.group[counts], found.sum_of[counts]] = advantage[counts].abs()  # the same for all of a sum
    return whole


def total_variance(x: Tensor) -> float:
    """Trace of the covariance of one group's estimate, unbiased. x: float64 [G, G]."""
    groups = len(x)
    return float((x.diagonal().sum() - x.sum() / groups) / (groups - 1))


def squared_mean(x: Tensor) -> float:
    """Squared norm of the expected estimate, unbiased, so that it may come out negative."""
    groups = len(x)
    return float((x.sum() - x.diagonal().sum()) / (groups * (groups - 1)))


def resampled_variances(x: Tensor, counts: Tensor) -> Tensor:
    """float64 [R]: the total variance when group g is there counts[r, g] times. counts: float64 [R, G]."""
    groups = len(x)
    mean_part = ((counts @ x) * counts).sum(1) / groups
    return (counts @ x.diagonal() - mean_part) / (groups - 1)


def resamplings(groups: int, random: torch.Generator) -> Tensor:
    """float64 [R, G]: how often each group is drawn, G draws with replacement."""
    drawn = torch.randint(0, groups, (RESAMPLINGS, groups), generator=random)
    return torch.zeros(RESAMPLINGS, groups, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


@dataclass(frozen=True, slots=True)
class Comparison:
    """One estimator compared with the group mean's."""

    variance_ratio: float
    low: float
    """Lower end of its 95 % interval, groups resampled."""
    high: float
    difference: float
    """Norm of the difference of the two mean gradients, to the norm of the group mean's."""
    difference_by_chance: float
    """What the groups' scatter alone would make of it, if the two expectations were one."""
    length: float
    """Norm of the expected gradient to that of the group mean's, noise taken out; nan where that leaves nothing."""
    cosine: float
    """Between the two expectations; noise taken out. May come out above 1."""
    variance_ratio_at_equal_length: float
    """variance_ratio / length^2: the ratio when steps are scaled to be equally long."""


def compare(x: Tensor, yardstick: Tensor, across: Tensor, counts: Tensor) -> Comparison:
    """x, yardstick: products of the estimator and of the group mean's; across: of the one with the other, [G, G]."""
    groups = len(x)
    ratio = total_variance(x) / total_variance(yardstick)
    draws = resampled_variances(x, counts) / resampled_variances(yardstick, counts)
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    apart = x - across - across.t() + yardstick
    norm = math.sqrt(float(yardstick.sum()))
    own, other, both = squared_mean(x), squared_mean(yardstick), squared_mean((across + across.t()) / 2)
    usable = own > 0 and other > 0
    length = math.sqrt(own / other) if usable else math.nan
    return Comparison(
        variance_ratio=ratio,
        low=low,
        high=high,
        difference=math.sqrt(max(0.0, float(apart.sum()))) / norm,
        difference_by_chance=math.sqrt(max(0.0, total_variance(apart)) * groups) / norm,
        length=length,
        cosine=both / math.sqrt(own * other) if usable else math.nan,
        variance_ratio_at_equal_length=ratio / length**2 if usable else math.nan,
    )


def halves_apart(yardstick: Tensor) -> float:
    """Norm of the difference of the means of the two halves of the groups, to that of the mean of all."""
    groups = len(yardstick)
    side = torch.where(torch.arange(groups) < groups // 2, 1 / (groups // 2), -1 / (groups - groups // 2)).double()
    return math.sqrt(float(side @ yardstick @ side)) / (math.sqrt(float(yardstick.sum())) / groups)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Correlation of log proxy norms with log exact norms, over the sequences of groups whose rewards differ."""

    pearson: float
    spearman: float
    within_group: float
    """Pearson's, each less the mean of its group: what a group's baseline depends on."""


def agreement(found: Gradients) -> Agreement:
    kept = found.mixed
    exact, proxy, group = found.log_norm[kept], found.log_proxy[kept], found.group[kept]
    return Agreement(
        pearson=_correlation(exact, proxy),
        spearman=_correlation(_ranks(exact), _ranks(proxy)),
        within_group=_correlation(_less_group_mean(exact, group), _less_group_mean(proxy, group)),
    )


def _correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one, other]))[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """float64 [n]; no two are equal."""
    return values.argsort().argsort().double()


def _less_group_mean(values: Tensor, group: Tensor) -> Tensor:
    return values - group_mean(values, group)[group]
