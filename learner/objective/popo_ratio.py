"""Learns from positive responses alone, at a bounded distance from a slow twin. Ours, after the abstract of POPO (popo.py).

    maximize, where A > 0,  A min(s, 1 + above_one) - similarity (1 - cos(h, sg[h_twin])),   elsewhere 0
    s = exp(mean over the sequence of log current - log twin),   h = mean over the sequence of the last hidden state

The twin is the moving average of the weights (the reference policy). Which responses are positive, and that each group weighs
alike, is in the advantage (the baseline `positives`). The similarity term stands in place of a KL term, without the predictor
network that siamese methods have.
"""

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.gspo import sequence_ratio
from learner.objective.tokens import Tokens
from services.config.objectives.popo_ratio import PopoRatioObjective


def popo_ratio(tokens: Tokens, settings: PopoRatioObjective) -> Tensor:
    """A min(s, 1 + above_one) - similarity (1 - cos(h, sg[h_twin])) where A > 0, else 0. [T]."""
    s = sequence_ratio(tokens, tokens.reference_logp)
    value = s.clamp(max=1 + settings.above_one) * tokens.advantage
    if settings.needs_hidden:
        value = value - tokens.spread(similarity_penalty(tokens, settings))
    # The graph stays where nothing is positive: ranks must not differ in what they reduce.
    return torch.where(tokens.advantage > 0, value, 0 * value)


def similarity_penalty(tokens: Tokens, settings: PopoRatioObjective) -> Tensor:
    """similarity (1 - cosine) of each sequence, between 0 and twice `similarity`. [n]; gradient through tokens.hidden."""
    cosine = torch.cosine_similarity(tokens.hidden, tokens.reference_hidden, dim=-1, eps=1e-8)
    return settings.similarity * (1 - cosine.clamp(-1, 1))


OBJECTIVE = Objective(popo_ratio)
