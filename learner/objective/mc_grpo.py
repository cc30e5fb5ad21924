"""MC-GRPO (our reading of its abstract): GRPO's surrogate around the group's median in place of its mean.

    maximize  min(r A, clip(r, 1 - low, 1 + high) A),   r = current / proximal,   A = R - group median

The sequence that has the median, the pivot, is the baseline and nothing else: the step leaves its tokens out. The released code
divides advantages by the median absolute deviation plus 1e-3, and multiplies those that are not 0 by n over their number
(second-hand): learner.advantage.normalize = "median_deviation". It is not the default, because with rewards of 0 and 1 that
deviation is 0 in most groups, and the quotient a thousand.
"""

from learner.objective.base import Objective
from learner.objective.grpo import grpo

OBJECTIVE = Objective(grpo)
