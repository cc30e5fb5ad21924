"""Decoupled PPO (arXiv:2110.00641): importance to the behavior policy, trust region around another, the proximal one.

Its forms differ in who that is: the weights at the start of the batch, a point between behavior and current (no forward
of its own), or a moving average of the weights (PPO-EWMA).
"""

import math

import torch
from torch import Tensor

from learner.objective.surrogate import clipped_surrogate, ratio
from learner.objective.tokens import Tokens
from services.config.objective import DecoupledPpoObjective, PpoEwmaObjective


def log_linear_proximal(tokens: Tokens) -> Tensor:
    """behavior + a (current - behavior), with a = (lag - 1) / lag in [0, 1], and 1 at lag 0. [T], no gradient.

    As AReaL approximates the policy one version before the current one from the versions of both ends.
    """
    lag = tokens.lag_steps.clamp(min=1).to(tokens.behavior_logp.dtype)
    share = torch.where(tokens.lag_steps <= 0, torch.ones_like(lag), (lag - 1) / lag)
    return tokens.behavior_logp + share * (tokens.current_logp - tokens.behavior_logp)


def decoupled_ppo(tokens: Tokens, settings: DecoupledPpoObjective) -> Tensor:
    """c min(r A, clip(r) A) with r = current/proximal and the mismatch ratio c = proximal/behavior, bounded. [T].

    Above the cap a token is left out or its mismatch ratio cut; denominators count it still (arXiv:2505.24298).
    """
    proximal = tokens.proximal_logp if settings.proximal == "exact" else log_linear_proximal(tokens)
    mismatch = ratio(proximal, tokens.behavior_logp)
    if settings.above_cap == "truncate":
        mismatch = mismatch.clamp(max=settings.mismatch_cap)
    else:
        mismatch = torch.where(mismatch <= settings.mismatch_cap, mismatch, torch.zeros_like(mismatch))
    return mismatch * clipped_surrogate(tokens.logp, proximal, tokens.advantage, settings.clip, settings.dual_clip)


def ppo_ewma(tokens: Tokens, settings: PpoEwmaObjective) -> Tensor:
    """The same around the moving average, which is the reference policy here. [T].

    The behavior log-prob is raised to current - log cap at least, so that current/behavior is at most the cap; so is
    average/behavior.
    """
    behavior = torch.maximum(tokens.behavior_logp, tokens.current_logp - math.log(settings.cap))
    mismatch = ratio(tokens.reference_logp, behavior).clamp(max=settings.cap)
    return mismatch * clipped_surrogate(tokens.logp, tokens.reference_logp, tokens.advantage, settings.clip)
