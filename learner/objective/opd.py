"""On-policy distillation from one teacher.

maximize  r sg[beta (log teacher - log proximal) + outcome A],   r = current / proximal
"""

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.distillation import distillation
from learner.objective.tokens import Tokens
from services.config.objectives.opd import OpdObjective


def opd(tokens: Tokens, settings: OpdObjective) -> Tensor:
    """r sg[beta (log teacher - log proximal) + outcome A]. [T]."""
    return distillation(tokens, settings.beta, settings.outcome, weights=[1.0])


OBJECTIVE = Objective(opd)
