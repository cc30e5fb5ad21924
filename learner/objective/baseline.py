"""Baselines: the number subtracted from the rewards of a group.

`minimum_variance` is the off-policy optimal baseline of arXiv:2602.17616, b = sum N R / sum N, where N_i is the squared norm of
the sequence's gradient as it enters the step. Exact norms need one backward per sequence; the logit proxy needs a forward only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from learner.objective.ratios import segment_sum

ROUNDING = 1e-12
"""A reward this near the mean, relative to the largest reward of its group, counts as the mean."""
NEIGHBOR_MARGIN = 1e-3
"""Share of the gap between neighboring rewards that keeps the baseline strictly between them."""


def group_count(group: Tensor) -> int:
    """Number of groups, G. group: int64 [N], indices 0..G-1. A GPU that is asked makes the host wait: G is a parameter, too."""
    return int(group.max()) + 1 if len(group) else 0


def group_mean(values: Tensor, group: Tensor, groups: int | None = None) -> Tensor:
    """Mean of the values of each group. values: float64 [N]; group: int64 [N], indices 0..G-1; groups: G. float64 [G]."""
    zero = torch.zeros(group_count(group) if groups is None else groups, dtype=values.dtype, device=values.device)
    return zero.index_add(0, group, values) / group_sizes(group, len(zero))


def group_sizes(group: Tensor, groups: int) -> Tensor:
    """Members of each group. group: int64 [N], indices 0..groups-1. int64 [groups]."""
    return torch.zeros(groups, dtype=torch.int64, device=group.device).index_add(0, group, torch.ones_like(group))


def reward_sign(reward: Tensor, group: Tensor, groups: int | None = None) -> Tensor:
    """sgn(R - group mean), and 0 where the two differ only by the mean's rounding. float64 [N], values -1, 0, 1.

    reward: float64 [N]; group: int64 [N]; groups: their number.
    """
    mean = group_mean(reward, group, groups)
    above = reward - mean[group]
    low, high = _group_extremes(reward, group, len(mean))
    rounding = ROUNDING * torch.maximum(low.abs(), high.abs())
    return torch.where((low == high)[group] | (above.abs() <= rounding[group]), torch.zeros_like(reward), above.sign())


def all_equal(rewards: Sequence[float]) -> bool:
    """Whether the rewards of one group differ by rounding alone: `reward_sign` is 0 for each of them. For one group at a time, as
    they come: numbers are many times faster here than tensors of eight."""
    if all(reward == rewards[0] for reward in rewards):
        return True
    mean = sum(rewards) / len(rewards)
    rounding = ROUNDING * max(abs(min(rewards)), abs(max(rewards)))
    return all(abs(reward - mean) <= rounding for reward in rewards)


def log_gradient_norm(
    log_weight: Tensor,
    token_weight: Tensor,
    residual: Tensor,
    mask: Tensor,
    lengths: Tensor,
    *,
    per_token: bool,
) -> Tensor:
    """log N_i by the logit proxy: N_i = (rho_bar / L)^2 sum_t m w^2 (1 - 2 p_t + sum_v p_v^2). float64 [n].

    log_weight: float64 [n], log of the truncated importance ratio. token_weight: [T], everything else that multiplies a token's
    gradient: one-way weights, the surrogate's slope. residual: [T], root of the term in brackets (TokenStatistics.residual).
    mask: bool [T]; lengths: int64 [n].
    per_token: leave 1/L out (token_mean and constant aggregation). -inf where every token is certain, or no token counts.
    """
    nothing = torch.zeros((), dtype=torch.float64, device=residual.device)
    squares = segment_sum(torch.where(mask, (token_weight.double() * residual.double()).square(), nothing), lengths)
    counted = segment_sum(mask.double(), lengths).clamp(min=1)
    length_term = 0.0 if per_token else 2 * counted.log()
    return 2 * log_weight + squares.log() - length_term


def minimum_variance_baseline(reward: Tensor, log_norm: Tensor, group: Tensor, groups: int | None = None) -> Tensor:
    """b = sum N R / sum N of each group, clamped strictly between the two rewards next to the group mean. float64 [G].

    The clamp makes sgn(R - b) = sgn(R - mean) for every reward other than the mean itself. reward: float64 [N]; group: int64 [N];
    log_norm: log N, float64 [N], shifted by the group's maximum first, so that tiny norms do not vanish. A group without a finite
    norm has its mean as baseline. groups: G.
    """
    mean = group_mean(reward, group, groups)
    groups = len(mean)
    usable = torch.where(torch.isfinite(log_norm), log_norm, torch.full_like(log_norm, -torch.inf))
    top = torch.full_like(mean, -torch.inf).scatter_reduce(0, group, usable, "amax")
    shift = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    norm = (usable - shift[group]).exp()
    total = torch.zeros_like(mean).index_add(0, group, norm)
    weighted = torch.zeros_like(mean).index_add(0, group, norm * (reward - mean[group]))
    offset = torch.where(total > 0, weighted / torch.where(total > 0, total, torch.ones_like(total)), 0.0)
    sign = reward_sign(reward, group, groups)
    inf = torch.full((groups,), torch.inf, dtype=mean.dtype, device=mean.device)
    below = (-inf).scatter_reduce(0, group, torch.where(sign < 0, reward, -torch.inf), "amax")
    above = inf.scatter_reduce(0, group, torch.where(sign > 0, reward, torch.inf), "amin")
    margin = NEIGHBOR_MARGIN * (above - below)
    clamped = torch.minimum(torch.maximum(mean + offset, below + margin), above - margin)
    return torch.where(torch.isfinite(below) & torch.isfinite(above), clamped, mean)


def _group_extremes(reward: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(smallest, largest) reward of each group. float64 [G] each."""
    inf = torch.full((groups,), torch.inf, dtype=reward.dtype, device=reward.device)
    return inf.scatter_reduce(0, group, reward, "amin"), (-inf).scatter_reduce(0, group, reward, "amax")
