"""One-Way Policy Optimization over REINFORCE (arXiv:2605.22156; our reading).

    maximize  w A log pi,   w as in owpo.py

The step multiplies it with the truncated importance weight of the current policy over the behavior policy.
"""

from learner.objective.base import Objective
from learner.objective.owpo import owpo_weight
from learner.objective.reinforce import reinforce

OBJECTIVE = Objective(reinforce, token_weight=owpo_weight)
