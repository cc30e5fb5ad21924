"""MC-GRPO (our reading of its abstract): GRPO's surrogate around the group's median in place of its mean.

    maximize  min(r A, clip(r, 1 - low, 1 + high) A),   r = current / proximal,   A = R - group median

The sequence that has the median, the pivot, is the baseline and nothing else: the step leaves its tokens out.
"""

from learner.objective.base import Objective
from learner.objective.grpo import grpo

OBJECTIVE = Objective(grpo)
