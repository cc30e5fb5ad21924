"""Effective sample size of a whole optimizer step, and the step-size factor that follows from it (arXiv:2602.17616).

In float64 and log space: in float32 the sums overflow or vanish long before the ratio does. There is no epsilon.
"""

import math

import torch
from torch import Tensor

from services.config.learner import EssConfig


def ess_ratio(log_weight: Tensor) -> float:
    """(sum w)^2 / (B sum w^2) from untruncated log w, in (0, 1]; nan when empty or any entry is not finite.

    log_weight: float64 [B], all sequences of the step, all ranks. exp(2 LSE(lw) - LSE(2 lw) - log B).
    """
    if log_weight.numel() == 0 or not bool(torch.isfinite(log_weight).all()):
        return math.nan
    lw = log_weight.double()
    log_ess = 2 * torch.logsumexp(lw, 0) - torch.logsumexp(2 * lw, 0)
    return min(1.0, float(torch.exp(log_ess - math.log(len(lw)))))


def learning_rate_factor(ratio: float, settings: EssConfig) -> float:
    """max(floor, sqrt(min(1, ratio / full_ratio))); 1 when disabled. ratio must be finite: a nan step is skipped."""
    if not settings.enabled:
        return 1.0
    return max(settings.floor, math.sqrt(min(1.0, ratio / settings.full_ratio)))
