"""Decoupled PPO (arXiv:2110.00641): importance relative to the behavior policy, trust region around the proximal one.

    maximize  c min(r A, clip(r, 1 - low, 1 + high) A),   r = current / proximal,   c = sg[proximal / behavior], bounded

The proximal policy is the weights that the batch began with, or a point between behavior and current that needs no forward.
"""

from typing import Literal

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import clipped_surrogate, ratio
from learner.objective.tokens import Tokens
from services.config.objectives.decoupled_ppo import DecoupledPpoObjective


def log_linear_proximal(tokens: Tokens, at_lag_zero: Literal["current", "behavior"]) -> Tensor:
    """behavior + a (current - behavior) in log-probs, a = (lag - 1) / lag in [0, 1]. [T], nats, no gradient.

    AReaL approximates the policy one version before the current one in this way, from the versions of both ends. At lag 0
    there is none: its comment says a = 1 and its code has a = 0, which is the choice between "current" and "behavior". A token
    of a version that a restart took back (lag below 0) has a = 0: how far it is from the current policy is not known.
    """
    lag = tokens.lag_steps.clamp(min=1).to(tokens.behavior_logp.dtype)
    whole = (tokens.lag_steps == 0) & (at_lag_zero == "current")
    share = torch.where(whole, torch.ones_like(lag), (lag - 1) / lag)
    return tokens.behavior_logp + share * (tokens.current_logp - tokens.behavior_logp)


def decoupled_ppo(tokens: Tokens, settings: DecoupledPpoObjective) -> Tensor:
    """c min(r A, clip(r) A), r = current/proximal, the mismatch ratio c = proximal/behavior bounded. [T].

    Above the cap a token is left out, or its mismatch ratio cut; denominators count it in either case (arXiv:2505.24298).
    """
    proximal = (
        tokens.proximal_logp if settings.proximal == "exact" else log_linear_proximal(tokens, settings.at_lag_zero)
    )
    mismatch = ratio(proximal, tokens.behavior_logp)
    if settings.above_cap == "truncate":
        mismatch = mismatch.clamp(max=settings.mismatch_cap)
    else:
        mismatch = torch.where(mismatch <= settings.mismatch_cap, mismatch, torch.zeros_like(mismatch))
    return mismatch * clipped_surrogate(tokens.logp, proximal, tokens.advantage, settings.clip, settings.dual_clip)


OBJECTIVE = Objective(decoupled_ppo)
