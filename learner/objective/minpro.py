"""MinPRO (our reading of its abstract): a prefix weight without the product that explodes with length.

    maximize  sg[min(rho_t x min over j < t of rho_j, cap)] A log pi,   rho = current / behavior

A sequence's first token has the weight min(rho_1, cap). The cap is ours. With `clip` the weight is clip(rho_t x min over j < t of
rho_j, 1 - low, 1 + high) instead, which is how a survey states the method; the paper itself was not seen.
"""

import math

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.ratios import over_tokens
from learner.objective.surrogate import LOG_RATIO_LIMIT
from learner.objective.tokens import Tokens
from services.config.objectives.minpro import MinproObjective


def smallest_before(values: Tensor, lengths: Tensor) -> Tensor:
    """Minimum over the earlier tokens of the same sequence; +inf at its first. [T]; lengths: int64 [n], summing to T."""
    if len(values) == 0:
        return values
    start = lengths.cumsum(0) - lengths
    row = over_tokens(torch.arange(len(lengths), device=values.device), lengths, len(values))
    column = torch.arange(len(values), device=values.device) - start[row]
    padded = torch.full((len(lengths), int(lengths.max()) + 1), math.inf, dtype=values.dtype, device=values.device)
    padded[row, column + 1] = values
    return padded.cummin(1).values[row, column]


def minpro(tokens: Tokens, settings: MinproObjective) -> Tensor:
    """sg[min(rho_t x smallest rho before, cap)] A log pi, rho = current/behavior; clipped where `clip` is set. [T]."""
    log_r = (tokens.current_logp - tokens.behavior_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    before = smallest_before(log_r, tokens.lengths)
    log_weight = log_r + torch.where(torch.isinf(before), torch.zeros_like(before), before)
    weight = log_weight.clamp(max=math.log(settings.cap)).exp()
    if settings.clip is not None:
        weight = log_weight.exp().clamp(1 - settings.clip.low, 1 + settings.clip.high)
    return weight * tokens.advantage * tokens.logp


OBJECTIVE = Objective(minpro)
