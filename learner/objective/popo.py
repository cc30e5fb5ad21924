"""POPO (arXiv:2605.06650): likelihood of positive responses, near in representation to a slow twin.

    minimize, over the positive responses S of each prompt, the mean over prompts of  L_nll + alpha L_sim + beta L_ent
    L_nll = -sum_S w log pi,   w = sg[pi / sum_S pi],   pi the probability of a whole response
    L_sim = -sum_S w cos(predictor(h), sg[h_twin + noise]),   h = mean over the response of the last hidden state
    L_ent = -mean_S H,   H = mean over the response of the entropy of the next token

The equations are those of the authors' README; the twin is the moving average of the weights (the reference policy), and the
predictor is trained with the model (learner/engine/predictor.py). Where the README is silent, ours: w carries no gradient, h is a
mean over tokens, H is over positive responses, and log pi is a sum unless `length_normalized`. Which responses are positive is in
the advantage (the baseline `positives`), n / |S| for them: each prompt weighs by its number n of responses.
"""

import math

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.ratios import segment_sum
from learner.objective.tokens import Tokens
from services.config.objectives.popo import PopoObjective


def popo_groups(tokens: Tokens, settings: PopoObjective) -> Tensor:
    """(log of the sum of pi over the positive responses, their number), for each group. float64 [2, G].

    tokens: those of the whole optimizer step. -inf and 0 for a group without positive responses.
    """
    score, positive = _log_probability(tokens, settings), _positive(tokens)
    groups = int(tokens.group.max()) + 1 if len(tokens.group) else 0
    score, group = score[positive], tokens.group[positive]
    count = torch.bincount(group, minlength=groups).double()
    top = torch.full((groups,), -math.inf, dtype=torch.float64, device=score.device)
    top = top.scatter_reduce(0, group, score, "amax")
    total = torch.zeros_like(top).index_add(0, group, (score - top[group]).exp())
    return torch.stack([top + total.log(), count])


def popo(tokens: Tokens, settings: PopoObjective) -> Tensor:
    """n (w L log pi_t + alpha w cosine) + beta A H_t where A > 0, else 0. [T]. tokens.statistics: of popo_groups.

    L is the number of tokens that the aggregate `sequence_mean` divides by, 1 where `length_normalized`.
    """
    log_total, count = tokens.statistics[:, tokens.group]
    # Selected before exp: a group without positive responses has a log total of -inf.
    log_share = torch.where(_positive(tokens), _log_probability(tokens, settings) - log_total, -math.inf)
    share = log_share.exp().to(tokens.logp)  # w
    length = torch.ones_like(share) if settings.length_normalized else tokens.lengths.to(share)
    likelihood = tokens.spread(share * length) * tokens.logp
    near = settings.alpha * tokens.spread(share * _cosine(tokens)) if settings.needs_hidden else 0.0
    responses = tokens.advantage * tokens.spread(count).to(share)  # n
    value = responses * (likelihood + near) + settings.beta * tokens.advantage * tokens.entropy
    # The graph stays where nothing is positive: ranks must not differ in what they reduce.
    return torch.where(tokens.advantage > 0, value, 0 * (tokens.logp + near + tokens.entropy))


def _positive(tokens: Tokens) -> Tensor:
    """bool [n]; a response without tokens is not."""
    return tokens.sequence_mean(tokens.advantage) > 0


def _log_probability(tokens: Tokens, settings: PopoObjective) -> Tensor:
    """log pi of each response under the current policy. float64 [n], no gradient."""
    total = segment_sum(tokens.current_logp.double(), tokens.lengths)
    return total / tokens.lengths.clamp(min=1) if settings.length_normalized else total


def _cosine(tokens: Tokens) -> Tensor:
    """[n]; gradient through tokens.predicted_hidden."""
    return torch.cosine_similarity(tokens.predicted_hidden, tokens.reference_hidden, dim=-1, eps=1e-8)


OBJECTIVE = Objective(popo, statistics=popo_groups)
