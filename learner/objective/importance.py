"""Importance weights of [learner.importance]: over which tokens ratios are multiplied, and what happens beyond the bounds.

Weights are applied to tokens whose denominators were counted before: what is left out here renormalizes nothing.
"""

import math

import torch
from torch import Tensor

from learner.objective.ratios import LOWEST_LOG_WEIGHT, segment_cumsum, segment_sum
from services.config.learner import ImportanceConfig


def log_importance(log_ratio: Tensor, lengths: Tensor, settings: ImportanceConfig) -> Tensor:
    """log w of each token, before any bound. log_ratio: [T] of tokens that count; lengths: int64 [n]. float64 [T].

    token: its own ratio. sequence: the product over the sequence (arXiv:2602.17616). prefix: the product up to the token.
    """
    log_ratio = log_ratio.detach().double()
    if settings.level == "none":
        return torch.zeros_like(log_ratio)
    if settings.level == "token":
        return log_ratio
    if settings.level == "prefix":
        return segment_cumsum(log_ratio, lengths)
    return segment_sum(log_ratio, lengths).repeat_interleave(lengths)


def within_bounds(log_weight: Tensor, settings: ImportanceConfig) -> Tensor:
    """bool [T]: floor <= w <= cap."""
    low = math.log(settings.floor) if settings.floor > 0 else -math.inf
    return (log_weight >= low) & (log_weight <= math.log(settings.cap))


def importance_weight(log_weight: Tensor, lengths: Tensor, settings: ImportanceConfig) -> Tensor:
    """What each token's loss is multiplied by, float32 [T], no gradient. log_weight: from log_importance.

    truncate: min(w, cap). mask: 0 on the tokens beyond the bounds. reject: 0 on their whole sequences.
    """
    bounded = log_weight.clamp(LOWEST_LOG_WEIGHT, math.log(settings.cap)).exp().float()
    if settings.action == "truncate":
        return bounded
    kept = within_bounds(log_weight, settings)
    if settings.action == "reject":
        beyond = segment_sum((~kept).long(), lengths)
        kept = (beyond == 0).repeat_interleave(lengths)
    return torch.where(kept, bounded, torch.zeros_like(bounded))
