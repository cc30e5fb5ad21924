"""Log-ratios, and sums over the sequences of a ragged axis, in float32 and log space until the last moment.

Tokens that do not count are selected away before any arithmetic: multiplying by a mask would let nan x 0 = nan through.
How long a ragged axis is always comes from a shape: asked for a sum of lengths, a GPU makes the host wait.
"""

import torch
from torch import Tensor

LOWEST_LOG_WEIGHT = -20.0
"""Lower clamp of the logarithm of a gradient weight, in nats (VCPO's released recipe). Never applied to the ESS."""


def log_ratio(logp: Tensor, other_logp: Tensor, mask: Tensor) -> Tensor:
    """logp - other_logp where the mask is set, 0 elsewhere. [T] of any float dtype, upcast before subtracting; float32 [T]."""
    zero = torch.zeros((), dtype=torch.float32, device=logp.device)
    return torch.where(mask, logp.float(), zero) - torch.where(mask, other_logp.float(), zero)


def segment_sum(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums over consecutive runs. values: [T] or [T, H]; lengths: int64 [n], summing to T. [n] or [n, H], of the same dtype."""
    segments = over_tokens(torch.arange(len(lengths), device=values.device), lengths, len(values))
    shape = (len(lengths), *values.shape[1:])
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_add(0, segments, values)


def over_tokens(values: Tensor, lengths: Tensor, total: int) -> Tensor:
    """Each sequence's value on all of its tokens. values: [n]; lengths: int64 [n], summing to `total`. [total]."""
    return values.repeat_interleave(lengths, output_size=total)


def segment_mean(values: Tensor, lengths: Tensor) -> Tensor:
    """Means over consecutive runs, 0 for an empty one. values: [T] or [T, H]; lengths: int64 [n]. [n] or [n, H]."""
    count = lengths.clamp(min=1)
    return segment_sum(values, lengths) / (count if values.dim() == 1 else count[:, None])


def segment_cumsum(values: Tensor, lengths: Tensor) -> Tensor:
    """Running sums within consecutive runs, each value's own included. values: [T]; lengths: int64 [n], summing to T. [T]."""
    running = torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
    return running[1:] - over_tokens(running[lengths.cumsum(0) - lengths], lengths, len(values))


def sequence_log_weight(logp: Tensor, behavior_logp: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """log rho_i, the sum of current - behavior over the tokens that count (arXiv:2602.17616). float64 [n], no gradient."""
    return segment_sum(log_ratio(logp.detach(), behavior_logp, mask).double(), lengths)
