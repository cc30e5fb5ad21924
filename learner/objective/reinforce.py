"""REINFORCE: the advantage times the log-prob.

    maximize  A log pi

The step multiplies it with the importance weight of the current policy over the behavior policy, truncated, as in
arXiv:2602.17616.
"""

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.tokens import Tokens
from services.config.objectives.base import ObjectiveSettings


def reinforce(tokens: Tokens, settings: ObjectiveSettings) -> Tensor:
    """A log pi. [T]."""
    return tokens.advantage * tokens.logp


OBJECTIVE = Objective(reinforce)
