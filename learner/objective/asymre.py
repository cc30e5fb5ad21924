"""AsymRE (arXiv:2506.20520): REINFORCE off policy without a ratio, the baseline b shifted.

    maximize  (R - (b + shift)) log pi  =  (A - shift) log pi

A shift below 0 weights successes more than failures. In a group whose rewards are all equal, A is 0 and the shift is left:
the objective keeps such groups (learner.zero_variance = "train").
"""

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.tokens import Tokens
from services.config.objectives.asymre import AsymreObjective


def asymre(tokens: Tokens, settings: AsymreObjective) -> Tensor:
    """(A - shift) log pi. [T]."""
    return (tokens.advantage - settings.shift) * tokens.logp


OBJECTIVE = Objective(asymre)
