"""Importance weights of [learner.importance]: over which tokens ratios are multiplied, and what happens beyond the bounds.

Denominators were counted before weights are applied, so leaving tokens out here makes no other token heavier.
"""

import math

import torch
from torch import Tensor

from learner.objective.ratios import LOWEST_LOG_WEIGHT, over_tokens, segment_cumsum, segment_sum
from services.config.advantage import ImportanceConfig


def log_importance(log_ratio: Tensor, lengths: Tensor, settings: ImportanceConfig) -> Tensor:
    """Log importance weight of each token, before any bound. float64 [T], no gradient.

    log_ratio: [T], nats, of tokens that count; lengths: int64 [n]. By settings.level: the token's own ratio, the product over the
    sequence (arXiv:2602.17616), the product up to the token, or 1 (none).
    """
    log_ratio = log_ratio.detach().double()
    if settings.level == "none":
        return torch.zeros_like(log_ratio)
    if settings.level == "token":
        return log_ratio
    if settings.level == "prefix":
        return segment_cumsum(log_ratio, lengths)
    return over_tokens(segment_sum(log_ratio, lengths), lengths, len(log_ratio))


def within_bounds(log_weight: Tensor, settings: ImportanceConfig) -> Tensor:
    """Whether floor <= w <= cap for each token. log_weight: [T]; bool [T]."""
    low = math.log(settings.floor) if settings.floor > 0 else -math.inf
    return (log_weight >= low) & (log_weight <= math.log(settings.cap))


def importance_weight(log_weight: Tensor, lengths: Tensor, settings: ImportanceConfig) -> Tensor:
    """Factor on each token's loss. float32 [T], no gradient. log_weight: float64 [T], from log_importance; lengths: int64 [n].

    truncate: min(w, cap). mask: 0 on the tokens beyond the bounds. reject: 0 on the whole sequences of such tokens.
    """
    bounded = log_weight.clamp(LOWEST_LOG_WEIGHT, math.log(settings.cap)).exp().float()
    if settings.action == "truncate":
        return bounded
    kept = within_bounds(log_weight, settings)
    if settings.action == "reject":
        beyond = segment_sum((~kept).long(), lengths)
        kept = over_tokens(beyond == 0, lengths, len(kept))
    return torch.where(kept, bounded, torch.zeros_like(bounded))
