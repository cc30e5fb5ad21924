"""PPO-EWMA (arXiv:2110.00641): decoupled PPO around a moving average of the weights, which is the reference policy here.

    maximize  c min(r A, clip(r, 1 - low, 1 + high) A),   r = current / average,   c = sg[min(average / behavior', cap)]
    behavior' = max(behavior, current / cap)

so that current/behavior' is at most the cap as well. The cap of 100 and the debiased average are those of the cited code.
"""

import math

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import clipped_surrogate, ratio
from learner.objective.tokens import Tokens
from services.config.objectives.ppo_ewma import PpoEwmaObjective


def ppo_ewma(tokens: Tokens, settings: PpoEwmaObjective) -> Tensor:
    """c min(r A, clip(r) A), r = current/average, c = average/behavior' at most cap. [T]."""
    behavior = torch.maximum(tokens.behavior_logp, tokens.current_logp - math.log(settings.cap))
    mismatch = ratio(tokens.reference_logp, behavior).clamp(max=settings.cap)
    return mismatch * clipped_surrogate(tokens.logp, tokens.reference_logp, tokens.advantage, settings.clip)


OBJECTIVE = Objective(ppo_ewma)
