"""MaxRL (arXiv:2602.02710): GRPO's surrogate, with advantages that make of pass rates their logarithms.

    maximize  min(r A, clip(r, 1 - low, 1 + high) A),   r = current / proximal,   A = (R - group mean) / group mean

With n rewards of 0 and 1 its expected gradient is that of -sum over 0 < j < n of (1 - p)^j / j, the beginning of the series of
log p, where p is the chance of a reward of 1: prompts weigh about like 1 / p. The paper's sum is one term longer: it needs the
advantage -1 in groups without any reward, where (R - mean) / mean has no value; here it is 0. The clip is ours, for stale data.
"""

from learner.objective.base import Objective
from learner.objective.grpo import grpo

OBJECTIVE = Objective(grpo)
