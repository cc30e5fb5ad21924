"""The minimum-variance baseline with the gradient norms themselves (arXiv:2602.17616): the oracle beside the logit proxy.

A sequence with advantage (R - b) / sigma has the gradient (R - b) / sigma x s g, where g is that of its loss with advantage
s = sgn(R - mean): the baseline keeps the sign, so one-way weights and clips are the same. So one backward a sequence gives
both its norm and, in two sums, the step: sum R s g / sigma less b x sum s g / sigma, b being known at the group's end.
"""

import torch
from torch import Tensor

from learner.batch.packing import MicroBatch
from learner.engine.protocol import Share
from learner.objective.advantage import Normalize, deviation
from learner.objective.baseline import group_mean, minimum_variance_baseline, reward_sign


class ExactBaseline:
    """Of one optimizer step, on the rank that has the groups; its other groups keep the baseline 0."""

    def __init__(self, reward: Tensor, group: Tensor, normalize: Normalize) -> None:
        """reward: float64 [N]; group: int64 [N], each whole on one rank and in order."""
        self.sign = reward_sign(reward, group)
        self._reward, self._group = reward, group
        sigma = deviation(reward, group, normalize)[group]
        self._factor = torch.where(self.sign == 0, torch.zeros_like(reward), self.sign / sigma)
        self._log_norm = torch.full_like(reward, -torch.inf)
        self._left = torch.bincount(group).tolist()
        self.baseline = torch.zeros_like(group_mean(reward, group))

    def share(self, micro_batch: MicroBatch, squared_norm: float) -> Share:
        """Of the next sequence, in the order of `one_each`."""
        (i,) = micro_batch.sequence_index.tolist()
        g, factor = int(self._group[i]), float(self._factor[i])
        self._log_norm[i] = torch.tensor(squared_norm, dtype=torch.float64).log()
        self._left[g] -= 1
        if self._left[g] == 0:
            members = self._group == g
            one = torch.zeros_like(self._group[members])
            self.baseline[g] = minimum_variance_baseline(self._reward[members], self._log_norm[members], one)[0]
        return Share(
            first=factor * float(self._reward[i]),
            second=factor,
            baseline=float(self.baseline[g]) if self._left[g] == 0 else None,
        )
