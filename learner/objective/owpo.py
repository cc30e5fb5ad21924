"""One-Way Policy Optimization (arXiv:2605.22156; our reading): a bounded factor on each token's surrogate.

With delta = sgn(A) (current - reference) log-prob: behind the reference (delta < 0) a token is moved faster, ahead of
it slower, so that what was gained since the reference is kept. The factor carries no gradient and no sign of its own.
"""

import math

import torch
from torch import Tensor

from learner.objective.surrogate import clipped_surrogate
from services.config.learner import OwpoObjective


def one_way_weight(logp: Tensor, ref_logp: Tensor, sign: Tensor, low: float, high: float) -> Tensor:
    """clip(exp(-delta), low, high), clamped in log space; 1 where the advantage is 0 or the reference is not finite.

    logp, ref_logp: float32 [T], learner's kernels and temperature both; sign: [T], of the advantage. No gradient.
    """
    delta = sign * (logp.detach().float() - ref_logp.float())
    usable = torch.isfinite(delta) & (sign != 0)
    log_weight = torch.where(usable, -delta, torch.zeros_like(delta)).clamp(math.log(low), math.log(high))
    # The bounds themselves, not exp(log(bound)): tests and the fraction at a bound compare with them.
    return log_weight.exp().clamp(low, high).detach()


class Owpo:
    needs_reference = True

    def __init__(self, settings: OwpoObjective) -> None:
        self.settings = settings

    def token_weight(self, logp: Tensor, ref_logp: Tensor, sign: Tensor) -> Tensor:
        return one_way_weight(logp, ref_logp, sign, self.settings.weight_low, self.settings.weight_high)

    def surrogate(self, logp: Tensor, proximal_logp: Tensor, advantage: Tensor) -> Tensor:
        return clipped_surrogate(logp, proximal_logp, advantage, self.settings.clip)
