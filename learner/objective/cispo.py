"""CISPO (arXiv:2506.13585): the clipped ratio weighs the log-prob, so that no token's gradient is cut to zero.

Implementations differ in their bounds; here [1 - low, 1 + high], and low = 1 means none.
"""

from torch import Tensor

from learner.objective.surrogate import ratio
from learner.objective.tokens import Tokens
from services.config.objective import CispoObjective


def cispo(tokens: Tokens, settings: CispoObjective) -> Tensor:
    """sg[clip(r, 1 - low, 1 + high)] A log pi, r = current/proximal. [T]."""
    clipped = ratio(tokens.current_logp, tokens.proximal_logp).clamp(1 - settings.clip.low, 1 + settings.clip.high)
    return clipped * tokens.advantage * tokens.logp
