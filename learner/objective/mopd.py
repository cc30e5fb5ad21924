"""Multi-teacher on-policy distillation (our reading; no source was available).

maximize  r sg[beta sum_k w_k (log teacher_k - log proximal) + outcome A],   r = current / proximal,   sum_k w_k = 1
"""

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.distillation import distillation
from learner.objective.tokens import Tokens
from services.config.objectives.mopd import MopdObjective


def mopd(tokens: Tokens, settings: MopdObjective) -> Tensor:
    """r sg[beta sum_k w_k (log teacher_k - log proximal) + outcome A]. [T]."""
    weights = settings.weights or [1.0] * len(tokens.teacher_logp)
    return distillation(tokens, settings.beta, settings.outcome, weights)


OBJECTIVE = Objective(mopd)
