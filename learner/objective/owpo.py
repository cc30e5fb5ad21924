"""One-Way Policy Optimization (arXiv:2605.22156; our reading): a bounded factor on each token's surrogate.

With delta = sgn(A) (current - reference) log-prob: behind the reference (delta < 0) a token is moved faster, ahead of
it slower, so that what was gained since the reference is kept. The factor carries no gradient and no sign of its own.
"""

import math

import torch
from torch import Tensor

from learner.objective.tokens import Tokens
from services.config.objective import OwpoObjective, OwpoReinforceObjective


def one_way_weight(logp: Tensor, ref_logp: Tensor, sign: Tensor, low: float, high: float) -> Tensor:
    """clip(exp(-delta), low, high), clamped in log space; 1 where the advantage is 0 or the reference is not finite.

    logp, ref_logp: float32 [T], learner's kernels and temperature both; sign: [T], of the advantage. No gradient.
    """
    delta = sign * (logp.detach().float() - ref_logp.float())
    usable = torch.isfinite(delta) & (sign != 0)
    log_weight = torch.where(usable, -delta, torch.zeros_like(delta)).clamp(math.log(low), math.log(high))
    # The bounds themselves, not exp(log(bound)): tests and the fraction at a bound compare with them.
    return log_weight.exp().clamp(low, high).detach()


def owpo_weight(tokens: Tokens, settings: OwpoObjective | OwpoReinforceObjective) -> Tensor:
    """The one-way weight of each token, float32 [T]. The base objective's surrogate is multiplied by it."""
    return one_way_weight(
        tokens.current_logp,
        tokens.reference_logp,
        tokens.advantage.sign(),
        settings.weight_low,
        settings.weight_high,
    )
