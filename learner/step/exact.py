"""The arithmetic of the exact minimum-variance baseline (arXiv:2602.17616): gradient norms themselves, not a proxy.

A sequence with advantage (R - b) / sigma has the gradient (R - b) / sigma x s g, where g is the gradient of its loss with
advantage s = sgn(R - mean): the baseline keeps the sign, so one-way weights and clips are the same. One backward a sequence
therefore gives both its norm and, in two sums, the step: sum (R - mean) s g / sigma minus (b - mean) x sum s g / sigma, where b
is known once the group is complete. The group's mean is taken out first: it would be the difference of the two sums, which are
in float32.
"""

import torch
from torch import Tensor

from learner.objective.advantage import Normalize, deviation
from learner.objective.baseline import group_mean, minimum_variance_baseline, reward_sign
from learner.step.loss import LossRecord

SMALLEST_NORM = 1e-12
"""Below it, the squares of a tensor in float32 may have lost most of their digits."""


class TwoGradientSums:
    """A `GradientSum` for the sequences of one step on one rank, one in each micro-batch and groups whole.

    Holds two whole gradients. `baseline` stays 0 for groups that live on other ranks.
    """

    def __init__(self, reward: Tensor, group: Tensor, normalize: Normalize) -> None:
        """reward: float64 [N]; group: int64 [N], each whole on one rank and in order."""
        self._reward = reward
        self._group = group
        self._mean = group_mean(reward, group)
        sign = reward_sign(reward, group)
        sigma = deviation(reward, group, normalize)[group]
        self._factor = torch.where(sign == 0, torch.zeros_like(reward), sign / sigma)
        """s / sigma of each sequence."""
        self._log_norm = torch.full_like(reward, -torch.inf)
        self._missing = torch.bincount(group).tolist()
        """Sequences of each group that are still to come."""
        self._with_reward: list[Tensor] = []
        """The sum of (R - mean) s g / sigma, minus (b - mean) x the other sum for groups that are complete."""
        self._without_reward: list[Tensor] = []
        """The sum of s g / sigma over the group that is not complete."""
        self.baseline = torch.zeros_like(self._mean)
        """float64 [G]."""

    def add(self, record: LossRecord, gradients: list[Tensor], scale: float) -> None:
        """gradients: `scale` times the gradient of one sequence's loss with advantage s, a tensor for each parameter."""
        (i,) = record.places.sequence_index.tolist()
        if not self._with_reward:
            self._with_reward = [torch.zeros_like(g) for g in gradients]
            self._without_reward = [torch.zeros_like(g) for g in gradients]
        self._log_norm[i] = torch.tensor(squared_norm(gradients) / scale**2, dtype=torch.float64).log()
        factor, group = float(self._factor[i]), int(self._group[i])
        above_mean = float(self._reward[i] - self._mean[group])
        torch._foreach_add_(self._with_reward, gradients, alpha=factor * above_mean)
        torch._foreach_add_(self._without_reward, gradients, alpha=factor)
        self._missing[group] -= 1
        if self._missing[group] == 0:
            self._complete(group)

    def write(self, gradients: list[Tensor]) -> None:
        """Overwrite `gradients` with the sum that is to be stepped with."""
        if self._with_reward:
            torch._foreach_copy_(gradients, self._with_reward)
        else:
            torch._foreach_zero_(gradients)

    def _complete(self, group: int) -> None:
        """Every sequence of the group has been added: its baseline is known, and is subtracted."""
        members = self._group == group
        alone = torch.zeros_like(self._group[members])
        baseline = minimum_variance_baseline(self._reward[members], self._log_norm[members], alone)[0]
        self.baseline[group] = baseline
        torch._foreach_add_(self._with_reward, self._without_reward, alpha=-float(baseline - self._mean[group]))
        torch._foreach_zero_(self._without_reward)


def squared_norm(gradients: list[Tensor]) -> float:
    """The squared norm over all parameters together, summed in float64."""
    norms = torch.stack(torch._foreach_norm(gradients)).double()
    if not bool(((norms > SMALLEST_NORM) & torch.isfinite(norms)).all()):  # squares beyond float32; far slower
        norms = torch.stack(torch._foreach_norm(gradients, dtype=torch.float64))
    return float(norms.square().sum())
