"""Effective sample size of a whole optimizer step, and the learning-rate factor that follows from it (arXiv:2602.17616).

Computed in float64 and log space: in float32 the sums overflow or vanish long before the ratio does. There is no epsilon.
"""

import math

import torch
from torch import Tensor

from services.config.control import EssConfig


def ess_ratio(log_weight: Tensor) -> float:
    """(sum w)^2 / (B sum w^2) = exp(2 LSE(log w) - LSE(2 log w) - log B), in (0, 1].

    log_weight: float64 [B], untruncated, of all sequences of the step on all ranks. nan when it is empty or an entry is not
    finite.
    """
    if log_weight.numel() == 0 or not bool(torch.isfinite(log_weight).all()):
        return math.nan
    lw = log_weight.double()
    log_ess = 2 * torch.logsumexp(lw, 0) - torch.logsumexp(2 * lw, 0)
    return min(1.0, float(torch.exp(log_ess - math.log(len(lw)))))


def learning_rate_factor(ratio: float, settings: EssConfig, full_ratio: float | None = None) -> float:
    """max(floor, sqrt(min(1, ratio / full_ratio))), or without the root under rule = "linear"; 1 when it is disabled.

    full_ratio: the measured one, 0 while it is being measured; None: that of the settings. 0, whatever the settings say, where
    either is not a finite number: a step whose weights are unknown may not move anything. The floor is ours, not the paper's.
    """
    whole = settings.full_ratio if full_ratio is None else full_ratio
    if not (math.isfinite(ratio) and math.isfinite(whole)):
        return 0.0
    if not settings.enabled or whole == 0:
        return 1.0
    part = min(1.0, ratio / whole)
    return max(settings.floor, math.sqrt(part) if settings.rule == "sqrt" else part)
