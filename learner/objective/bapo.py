"""BAPO (arXiv:2510.18927): the step's clip bounds rise until positive advantages weigh as much as negative ones.

    maximize  min(r A, clip(r, low, high) A), and where A < 0 at least dual_clip x A,   r = current / proximal

The lower bound rises first, as published. That adds to the negative part, so its loop runs to the end whenever it starts; then
the upper bound rises. The bounds are those of the whole step; the released code has them for each micro-batch.
"""

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
    low, high = settings.low, settings.high

    def unbalanced() -> bool:
        positive = float((r.clamp(max=high) * advantage.clamp(min=0)).sum())
        negative = float((r.clamp(min=low) * (-advantage).clamp(min=0)).sum())
        return negative > 0 and positive / negative < settings.balance

    while low < settings.low_most and unbalanced():
        low = min(low + settings.stride, settings.low_most)
    while high < settings.high_most and unbalanced():
        high = min(high + settings.stride, settings.high_most)
    return torch.tensor([low, high], dtype=torch.float64, device=r.device)


def bapo(tokens: Tokens, settings: BapoObjective) -> Tensor:
    """min(r A, clip(r, low, high) A), with dual clip. [T]. tokens.statistics: (low, high)."""
    low, high = tokens.statistics
    r = ratio(tokens.logp, tokens.proximal_logp)
    return pessimistic(r, low, high, tokens.advantage, settings.dual_clip)


OBJECTIVE = Objective(bapo, statistics=bapo_bounds)
