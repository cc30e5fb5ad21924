"""GSPO (arXiv:2507.18071): PPO's clip on the geometric mean of a sequence's ratios."""

from torch import Tensor

from learner.objective.surrogate import pessimistic
from learner.objective.tokens import Tokens
from services.config.objective import GspoObjective

LARGEST_LOG_RATIO = 10.0


def sequence_ratio(tokens: Tokens, other_logp: Tensor) -> Tensor:
    """Token form of s_i = exp(mean_t (current - other)): that number on each token, its gradient grad logp. [T].

    Averaged over the sequence it has the value and the gradient of s_i. The logarithm is clamped at 10 from above.
    """
    log_s = tokens.spread(tokens.sequence_mean(tokens.current_logp - other_logp))
    return (tokens.logp - tokens.current_logp + log_s).clamp(max=LARGEST_LOG_RATIO).exp()


def gspo(tokens: Tokens, settings: GspoObjective) -> Tensor:
    """min(s A, clip(s, 1 - low, 1 + high) A). [T]; to be aggregated by sequence_mean."""
    s = sequence_ratio(tokens, tokens.proximal_logp)
    return pessimistic(s, 1 - settings.clip.low, 1 + settings.clip.high, tokens.advantage)
