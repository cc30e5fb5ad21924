"""BAPO (arXiv:2510.18927): the step's clip bounds rise until positive advantages weigh as much as negative ones.

    maximize  min(r A, clip(r, low, high) A), and where A < 0 at least dual_clip x A,   r = current / proximal

The lower bound rises first, as published. That adds to the negative part, so its loop runs to the end whenever it starts; then
the upper bound rises. The bounds are those of the whole step; the released code has them for each micro-batch.
"""

import math
from bisect import bisect_left

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import pessimistic, ratio
from learner.objective.tokens import Tokens
from services.config.objectives.bapo import BapoObjective


def bapo_bounds(tokens: Tokens, settings: BapoObjective) -> Tensor:
    """(low, high) of the ratio for this step. float64 [2]. tokens: those of the whole optimizer step.

    positive = sum over A >= 0 of min(r, high) A; negative = sum over A < 0 of max(r, low) |A|. Where there is no negative
    part the bounds stay where they start.
    """
    r = ratio(tokens.current_logp, tokens.proximal_logp).double()
    advantage = tokens.advantage.double()

    def unbalanced(low: float, high: float) -> bool:
        positive = float((r.clamp(max=high) * advantage.clamp(min=0)).sum())
        negative = float((r.clamp(min=low) * (-advantage).clamp(min=0)).sum())
        return negative > 0 and positive / negative < settings.balance

    def raised(strides: int) -> float:
        return min(settings.high + strides * settings.stride, settings.high_most)

    # A higher lower bound only adds to what is too much already, so the published loop over it ends at its end.
    low = settings.low_most if unbalanced(settings.low, settings.high) else settings.low
    # A higher upper bound only adds to the positive part: the first balance is found by halving.
    most = math.ceil((settings.high_most - settings.high) / settings.stride)
    high = raised(bisect_left(range(most), True, key=lambda strides: not unbalanced(low, raised(strides))))
    return torch.tensor([low, high], dtype=torch.float64, device=r.device)


def bapo(tokens: Tokens, settings: BapoObjective) -> Tensor:
    """min(r A, clip(r, low, high) A), with dual clip. [T]. tokens.statistics: (low, high)."""
    low, high = tokens.statistics
    r = ratio(tokens.logp, tokens.proximal_logp)
    return pessimistic(r, low, high, tokens.advantage, settings.dual_clip)


OBJECTIVE = Objective(bapo, statistics=bapo_bounds)
