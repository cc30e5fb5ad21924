"""GSPO (arXiv:2507.18071): PPO's clip on the geometric mean of a sequence's ratios.

    maximize  min(s A, clip(s, 1 - low, 1 + high) A),   s = exp(mean over the sequence of log current - log proximal)

aggregated by sequence_mean.
"""

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import pessimistic
from learner.objective.tokens import Tokens
from services.config.objectives.gspo import GspoObjective

LARGEST_LOG_RATIO = 10.0
"""Upper bound on log s, in nats, as in the released code."""


def sequence_ratio(tokens: Tokens, other_logp: Tensor) -> Tensor:
    """Token form of s = exp(mean over the sequence of current - other): its value on each token, with gradient grad logp. [T].

    Averaged over the sequence it has the value and the gradient of s. other_logp: [T], nats.
    """
    log_s = tokens.spread(tokens.sequence_mean(tokens.current_logp - other_logp))
    return (tokens.logp - tokens.current_logp + log_s).clamp(max=LARGEST_LOG_RATIO).exp()


def gspo(tokens: Tokens, settings: GspoObjective) -> Tensor:
    """min(s A, clip(s, 1 - low, 1 + high) A). [T]."""
    s = sequence_ratio(tokens, tokens.proximal_logp)
    return pessimistic(s, 1 - settings.clip.low, 1 + settings.clip.high, tokens.advantage)


OBJECTIVE = Objective(gspo)
