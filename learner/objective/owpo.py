"""One-Way Policy Optimization (arXiv:2605.22156; our reading): a bounded factor on each token of the clipped surrogate.

    maximize  w min(r A, clip(r, 1 - low, 1 + high) A),   r = current / proximal
    w = sg[clip(exp(-delta), weight_low, weight_high)],   delta = sgn(A) (log current - log reference)

Behind the reference (delta < 0) a token moves faster, ahead of it slower, so that what was gained since the reference is kept.
The factor carries no gradient, and no sign of its own: no token is turned against its verdict.
"""

import math

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.grpo import grpo
from learner.objective.tokens import Tokens
from services.config.objectives.owpo import OneWaySettings


def one_way_weight(logp: Tensor, ref_logp: Tensor, sign: Tensor, low: float, high: float) -> Tensor:
    """clip(exp(-delta), low, high), clamped in log space; 1 where the advantage is 0 or the reference is not finite.

    logp, ref_logp: float32 [T], nats, both from the learner's kernels at the same temperature; sign: [T], of the advantage.
    float32 [T], no gradient.
    """
    delta = sign * (logp.detach().float() - ref_logp.float())
    usable = torch.isfinite(delta) & (sign != 0)
    log_weight = torch.where(usable, -delta, torch.zeros_like(delta)).clamp(math.log(low), math.log(high))
    # The bounds themselves, not exp(log(bound)): tests and the fraction at a bound compare with them.
    return log_weight.exp().clamp(low, high).detach()


def owpo_weight(tokens: Tokens, settings: OneWaySettings) -> Tensor:
    """The one-way weight of each token, which multiplies the base objective's surrogate. float32 [T]."""
    return one_way_weight(
        tokens.current_logp,
        tokens.reference_logp,
        tokens.advantage.sign(),
        settings.weight_low,
        settings.weight_high,
    )


OBJECTIVE = Objective(grpo, token_weight=owpo_weight)
