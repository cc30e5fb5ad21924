"""Ratios and the clipped policy-gradient surrogate that several objectives share."""

from typing import Any

import torch
from torch import Tensor

from services.config.objectives.base import ClipRange

LOG_RATIO_LIMIT = 20.0
"""Bound on a log-ratio, in nats, on both sides: an infinite ratio would have nan gradients."""


def ratio(logp: Tensor, other_logp: Tensor) -> Tensor:
    """exp(logp - other_logp), the logarithm clamped to +-20. [T]; gradient through logp alone."""
    return (logp - other_logp.detach()).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def clipped_surrogate(
    logp: Tensor, proximal_logp: Tensor, advantage: Tensor, clip: ClipRange, dual_clip: float | None = None
) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A) with r = current/proximal (PPO, arXiv:1707.06347). float32 [T].

    logp, proximal_logp: [T], nats; advantage: [T]. Gradient through logp alone. With one optimizer step a batch r is 1 and the
    gradient is A grad logp.
    """
    return pessimistic(ratio(logp, proximal_logp), 1 - clip.low, 1 + clip.high, advantage, dual_clip)


def _bound(bound: float | Tensor, r: Tensor) -> Any:
    return bound.to(r) if isinstance(bound, Tensor) else bound


def pessimistic(
    r: Tensor, low: float | Tensor, high: float | Tensor, advantage: Tensor, dual_clip: float | None = None
) -> Tensor:
    """min(r A, clip(r, low, high) A), and where A < 0 at least dual_clip x A (arXiv:1912.09729). [T].

    r, advantage: [T]; low, high: numbers or [T].
    """
    # One bound after the other: each may be a number, which needs no copy to the device that the host would wait for.
    bounded = r.clamp(min=_bound(low, r)).clamp(max=_bound(high, r))
    value = torch.minimum(r * advantage, bounded * advantage)
    return value if dual_clip is None else torch.where(advantage < 0, value.clamp(min=dual_clip * advantage), value)
