"""Advantages: the reward minus a baseline, divided by a deviation if the settings say so."""

import math
from typing import Literal

import torch
from torch import Tensor

from learner.objective.baseline import ROUNDING, group_mean, group_sizes, reward_sign
from services.config.advantage import AdvantageConfig

SAMPLE_STD_EPSILON = 1e-6
"""Added to the sample standard deviation, as GRPO was published (arXiv:2402.03300)."""

MEDIAN_DEVIATION_EPSILON = 1e-3
"""Added to the median absolute deviation, as in MC-GRPO's released code (second-hand)."""

Normalize = Literal["none", "sample_std", "population_std", "mean", "median_deviation"]


def advantages(reward: Tensor, baseline: Tensor, group: Tensor, normalize: Normalize) -> Tensor:
    """(R - b) / sigma, with the baseline and deviation of the sequence's group. float32 [N].

    A reward equal to the group mean has an advantage of exactly 0. reward: float64 [N]; baseline: float64 [G]; group: int64 [N],
    groups of two sequences or more. sigma is what `deviation` says.
    """
    sign = reward_sign(reward, group, len(baseline))
    advantage = torch.where(sign == 0, torch.zeros_like(reward), reward - baseline[group])
    return _over_deviation(advantage, reward, group, normalize, len(baseline)).float()


def group_advantages(reward: Tensor, group: Tensor, tokens: Tensor, settings: AdvantageConfig) -> Tensor:
    """Advantages under the baselines that need no model: all but minimum_variance, in either form. float32 [N].

    reward: float64 [N]; group: int64 [N]; tokens: int64 [N], the number that count in each sequence.
    mean: R - mean. leave_one_out: R - mean of the others = n / (n - 1) (R - mean) (RLOO, arXiv:2402.14740).
    length_weighted: R - sum L R / sum L (OPO, arXiv:2505.23585). median: R - median (MC-GRPO).
    log_mean_exp: R - tau log mean exp(R / tau) (OPMD, arXiv:2505.17826). positives: n / |P| where R > positive_above, else 0.
    A group whose rewards are all equal has advantages of 0 under every baseline except `positives`.

    Raises ValueError for a baseline that needs gradient norms.
    """
    mean = group_mean(reward, group)
    size = torch.bincount(group)
    if settings.baseline == "positives":
        positive = (reward > settings.positive_above).double()
        share = group_mean(positive, group).clamp(min=1e-12)  # a group without any has no numerator either
        return (positive / share[group]).float()
    if settings.baseline in ("mean", "leave_one_out"):
        advantage = advantages(reward, mean, group, "none").double()
        if settings.baseline == "leave_one_out":
            advantage = advantage * (size / (size - 1))[group]
    else:
        if settings.baseline == "length_weighted":
            weight = tokens.double()
            baseline = group_mean(reward * weight, group) / group_mean(weight, group).clamp(min=1e-12)
        elif settings.baseline == "median":
            baseline = reward[pivots(reward, group)]
        elif settings.baseline == "log_mean_exp":
            baseline = _log_mean_exp(reward, group, settings.tau)
        else:
            raise ValueError(f"{settings.baseline} needs the gradient norms of a step")
        varies = group_mean(reward_sign(reward, group).abs(), group) > 0
        advantage = torch.where(varies[group], reward - baseline[group], torch.zeros_like(reward))
    return _over_deviation(advantage, reward, group, settings.normalize).float()


def pivots(reward: Tensor, group: Tensor) -> Tensor:
    """Index of each group's median reward: the first of tied ones, the lower middle of an even group. int64 [G].

    Groups are odd when they are sampled, but may have lost a sequence that could not be used. reward: float64 [N]; group:
    int64 [N].
    """
    chosen = []
    for g in range(int(group.max()) + 1 if len(group) else 0):
        members = (group == g).nonzero()[:, 0]
        # The median's value, then the first that has it: sorting alone would not say which of the tied ones is the pivot.
        middle = reward[members].median()
        chosen.append(members[(reward[members] == middle).nonzero()[0, 0]])
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.int64, device=group.device)


def _log_mean_exp(reward: Tensor, group: Tensor, tau: float) -> Tensor:
    """tau log mean exp(R / tau) of each group, shifted by its maximum. float64 [G]."""
    groups = int(group.max()) + 1 if len(group) else 0
    top = torch.full((groups,), -math.inf, dtype=reward.dtype, device=reward.device)
    top = top.scatter_reduce(0, group, reward, "amax")
    # Of what differs from 1: with a large tau nothing else is left, and the limit is the mean.
    return top + tau * group_mean(((reward - top[group]) / tau).expm1(), group).log1p()


def deviation(reward: Tensor, group: Tensor, normalize: Normalize, groups: int | None = None) -> Tensor:
    """Divisor of each group's advantages; 0 for a group without variance under `population_std`. float64 [G].

    sample_std: over n - 1, plus 1e-6. population_std: over n. mean: the group's mean reward (MaxRL, arXiv:2602.02710); infinite,
    so that advantages are 0, where it is not above 0. median_deviation: (m + 1e-3) k / n, where m is the median of |R - median|
    and k the number of rewards that are not the median (MC-GRPO's released code, second-hand). reward: float64 [N]; group:
    int64 [N].
    """
    if normalize == "mean":
        mean = group_mean(reward, group, groups)
        largest = torch.zeros_like(mean).scatter_reduce(0, group, reward.abs(), "amax")
        return torch.where(mean > ROUNDING * largest, mean, torch.full_like(mean, math.inf))
    if normalize == "median_deviation":
        distance = (reward - reward[pivots(reward, group)][group]).abs()
        others = group_mean((distance > 0).double(), group)  # k / n
        return (distance[pivots(distance, group)] + MEDIAN_DEVIATION_EPSILON) * others
    mean = group_mean(reward, group, groups)
    variance = group_mean((reward - mean[group]).square(), group, groups)  # population
    if normalize == "none":
        return torch.ones_like(variance)
    if normalize == "population_std":
        return variance.sqrt()
    count = group_sizes(group, len(variance))
    return (variance * count / (count - 1)).sqrt() + SAMPLE_STD_EPSILON


def _over_deviation(
    advantage: Tensor, reward: Tensor, group: Tensor, normalize: Normalize, groups: int | None = None
) -> Tensor:
    return torch.where(advantage == 0, advantage, advantage / deviation(reward, group, normalize, groups)[group])
