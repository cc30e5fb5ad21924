"""CISPO (arXiv:2506.13585): the clipped ratio weights the log-prob, so no token's gradient is cut to zero.

    maximize  sg[clip(r, 1 - low, 1 + high)] A log pi,   r = current / proximal

Implementations differ in what they call the bounds; here low = 1 means that there is no lower one.
"""

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import ratio
from learner.objective.tokens import Tokens
from services.config.objectives.cispo import CispoObjective


def cispo(tokens: Tokens, settings: CispoObjective) -> Tensor:
    """sg[clip(r, 1 - low, 1 + high)] A log pi, r = current/proximal. [T]."""
    clipped = ratio(tokens.current_logp, tokens.proximal_logp).clamp(1 - settings.clip.low, 1 + settings.clip.high)
    return clipped * tokens.advantage * tokens.logp


OBJECTIVE = Objective(cispo)
