"""Ratios and the clipped policy-gradient surrogate that the objectives share."""

import torch
from torch import Tensor

from services.config.objective import ClipRange

LOG_RATIO_LIMIT = 20.0
"""An infinite ratio has nan gradients."""


def ratio(logp: Tensor, other_logp: Tensor) -> Tensor:
    """exp(logp - other), the logarithm clamped at +-20. [T]; gradient through logp alone."""
    return (logp - other_logp.detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def clipped_surrogate(
    logp: Tensor, proximal_logp: Tensor, advantage: Tensor, clip: ClipRange, dual_clip: float | None = None
) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A) with r = current/proximal (PPO, arXiv:1707.06347). float32 [T].

    Gradient through logp alone. With one optimizer step a batch r is 1 and the gradient is A grad logp.
    """
    return pessimistic(ratio(logp, proximal_logp), 1 - clip.low, 1 + clip.high, advantage, dual_clip)


def pessimistic(
    r: Tensor, low: float | Tensor, high: float | Tensor, advantage: Tensor, dual_clip: float | None = None
) -> Tensor:
    """min(r A, clip(r, low, high) A); at least dual_clip x A where A < 0 (arXiv:1912.09729). [T]. Bounds may be [T]."""
    bounded = r.clamp(torch.as_tensor(low).to(r), torch.as_tensor(high).to(r))
    value = torch.minimum(r * advantage, bounded * advantage)
    return value if dual_clip is None else torch.where(advantage < 0, value.clamp(min=dual_clip * advantage), value)
