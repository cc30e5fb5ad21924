"""Advantages: reward less baseline, over a deviation or not."""

from typing import Literal

import torch
from torch import Tensor

from learner.objective.baseline import group_mean, reward_sign

SAMPLE_STD_EPSILON = 1e-6
"""Added to the sample standard deviation, as GRPO is published."""


def advantages(
    reward: Tensor, baseline: Tensor, group: Tensor, normalize: Literal["none", "sample_std", "population_std"]
) -> Tensor:
    """(R - b) / sigma of its group. A reward equal to the group mean has advantage exactly 0. float32 [N].

    reward: float64 [N]; baseline: float64 [G]; group: int64 [N] of groups with two sequences or more.
    sample_std: over n - 1, plus 1e-6. population_std: over n.
    """
    sign = reward_sign(reward, group)
    advantage = torch.where(sign == 0, torch.zeros_like(reward), reward - baseline[group])
    if normalize == "none":
        return advantage.float()
    variance = group_mean((reward - group_mean(reward, group)[group]).square(), group)  # population
    if normalize == "population_std":
        sigma = variance.sqrt()
    else:
        count = torch.bincount(group, minlength=len(variance))
        sigma = (variance * count / (count - 1)).sqrt() + SAMPLE_STD_EPSILON
    return torch.where(sign == 0, advantage, advantage / sigma[group]).float()
