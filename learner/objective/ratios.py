"""Log-ratios and sequence-level importance ratios, in float32 and log space until the last moment.

Tokens that do not count are selected away before any arithmetic: multiplying by a mask would let nan x 0 = nan through.
"""

import math

import torch
from torch import Tensor

LOWEST_LOG_WEIGHT = -20.0
"""Lower clamp of a gradient weight's logarithm (VCPO's released recipe). Never applied to the ESS."""


def log_ratio(logp: Tensor, other_logp: Tensor, mask: Tensor) -> Tensor:
    """logp - other_logp where mask, 0 elsewhere. Any float dtype [T] in, upcast before subtracting; float32 [T] out."""
    zero = torch.zeros((), dtype=torch.float32, device=logp.device)
    return torch.where(mask, logp.float(), zero) - torch.where(mask, other_logp.float(), zero)


def segment_sum(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of consecutive runs. values: [T] or [T, H]; lengths: int64 [n], summing to T. Same dtype, [n] or [n, H]."""
    segments = torch.repeat_interleave(torch.arange(len(lengths), device=values.device), lengths)
    shape = (len(lengths), *values.shape[1:])
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_add(0, segments, values)


def segment_mean(values: Tensor, lengths: Tensor) -> Tensor:
    """Means of the same runs; 0 for an empty one."""
    count = lengths.clamp(min=1)
    return segment_sum(values, lengths) / (count if values.dim() == 1 else count[:, None])


def segment_cumsum(values: Tensor, lengths: Tensor) -> Tensor:
    """Running sums within consecutive runs, each token's own value included. [T]; lengths: int64 [n], summing to T."""
    running = torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
    return running[1:] - running[lengths.cumsum(0) - lengths].repeat_interleave(lengths)


def sequence_log_weight(logp: Tensor, behavior_logp: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """log rho_i: sum over tokens that count of current - behavior (arXiv:2602.17616). float64 [n], no gradient."""
    return segment_sum(log_ratio(logp.detach(), behavior_logp, mask).double(), lengths)


def truncated_weight(log_weight: Tensor, cap: float) -> Tensor:
    """Gradient weight min(rho, cap), float32 [n]. The logarithm is clamped at both ends before exp."""
    return log_weight.clamp(LOWEST_LOG_WEIGHT, math.log(cap)).exp().float()
