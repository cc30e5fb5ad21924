"""The mathematics of the objective `topr`.

maximize  A log pi where A >= 0,   sg[min(rho, cap)] A log pi where A < 0
rho = product over the response of current / behavior
"""

import math

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.ratios import segment_sum
from learner.objective.tokens import Tokens
from ratchet_objective_topr.settings import ToprObjective


def topr(tokens: Tokens, settings: ToprObjective) -> Tensor:
    """A log pi, tapered where A < 0. [T]."""
    log_ratio = tokens.spread(segment_sum(tokens.current_logp - tokens.behavior_logp, tokens.lengths))
    taper = log_ratio.clamp(max=math.log(settings.cap)).exp()
    weight = torch.where(tokens.advantage < 0, taper, torch.ones_like(taper))
    return weight * tokens.advantage * tokens.logp


OBJECTIVE = Objective(topr)
