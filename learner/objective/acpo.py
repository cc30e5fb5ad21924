"""ACPO (arXiv:2606.22570): tokens in bins of their probability, each bin clipped as wide as its ratios scatter.

    maximize  min(r A, clip(r, 1 - width, 1 + width) A), and where A < 0 at least dual_clip x A,   r = current / proximal
    width of a bin = clamp(base + alpha sqrt(Var r + 1e-8), narrowest, widest)

The variance is over the whole optimizer step. In the released code it is over a micro-batch, so that its result depends on
how the step was cut up.
"""

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import pessimistic, ratio
from learner.objective.tokens import Tokens
from services.config.objectives.acpo import AcpoObjective

VARIANCE_EPSILON = 1e-8
"""Added to the variance under the root, as in the released code."""


def probability_bin(tokens: Tokens, bins: int) -> Tensor:
    """Which of `bins` equal parts of [0, 1] the current probability falls in; 1 falls in the last. int64 [T]."""
    p = tokens.current_logp.exp().clamp(0, 1)
    return (p * bins).floor().long().clamp(0, bins - 1)


def acpo_widths(tokens: Tokens, settings: AcpoObjective) -> Tensor:
    """Each bin's clip width, from the population variance of its ratios; `base` where the bin is empty. float64 [bins].

    tokens: those of the whole optimizer step.
    """
    which, bins = probability_bin(tokens, settings.bins), settings.bins
    # Around 1, where the ratios are: the difference of two sums of squares would cancel.
    excess = ratio(tokens.current_logp, tokens.proximal_logp).double() - 1
    zero = torch.zeros(bins, dtype=torch.float64, device=excess.device)
    count = torch.bincount(which, minlength=bins).clamp(min=1)
    mean = zero.index_add(0, which, excess) / count
    variance = zero.index_add(0, which, (excess - mean[which]).square()) / count
    width = settings.base + settings.alpha * (variance + VARIANCE_EPSILON).sqrt()
    empty = torch.bincount(which, minlength=bins) == 0
    return torch.where(empty, settings.base, width.clamp(settings.narrowest, settings.widest))


def acpo(tokens: Tokens, settings: AcpoObjective) -> Tensor:
    """min(r A, clip(r, 1 - width, 1 + width) A), with dual clip. [T]. tokens.statistics: the widths."""
    r = ratio(tokens.logp, tokens.proximal_logp)
    width = tokens.statistics[probability_bin(tokens, settings.bins)].to(r.dtype)
    return pessimistic(r, 1 - width, 1 + width, tokens.advantage, settings.dual_clip)


OBJECTIVE = Objective(acpo, statistics=acpo_widths)
