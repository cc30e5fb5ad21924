"""What a step maximizes, as pure functions on ragged tensors.

To add an objective: one file with a function like `cispo`, its settings in services/config/objective.py (a class, and its
name in the union), one line in OBJECTIVES. tests/learner/objective/test_adding_one.py does it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learner.objective.acpo import acpo, acpo_widths
from learner.objective.bapo import bapo, bapo_bounds
from learner.objective.cispo import cispo
from learner.objective.decoupled import decoupled_ppo, ppo_ewma
from learner.objective.distillation import distillation
from learner.objective.grpo import grpo
from learner.objective.gspo import gspo
from learner.objective.minpro import minpro
from learner.objective.owpo import owpo_weight
from learner.objective.p3o import p3o, p3o_ess
from learner.objective.popo import popo
from learner.objective.reinforce import asymre, opmd, reinforce
from learner.objective.sapo import sapo
from learner.objective.tokens import Tokens


def _one(tokens: Tokens, settings: Any) -> Tensor:
    return torch.ones_like(tokens.current_logp)


@dataclass(frozen=True, slots=True)
class Objective:
    """The token loss is -importance weight x token weight x surrogate; importance weights, masks and sums are the step's.

    Each function takes the tokens and the objective's settings.
    """

    surrogate: Callable[[Tokens, Any], Tensor]
    """What is maximized, float32 [T]; gradient through tokens.logp alone."""
    token_weight: Callable[[Tokens, Any], Tensor] = _one
    """Positive factor on each token, float32 [T], no gradient; part of the baseline's norms."""
    statistics: Callable[[Tokens, Any], Tensor] | None = None
    """From the tokens of the whole optimizer step, all micro-batches and ranks, to what `surrogate` finds in
    tokens.statistics. Costs a forward when there is more than one micro-batch."""

    def slope(self, tokens: Tokens, settings: Any) -> Tensor:
        """Derivative of the surrogate by each token's log-prob, at the current policy: 0 where it is clipped. [T]."""
        with torch.enable_grad():
            probe = dataclasses.replace(tokens, logp=tokens.current_logp.clone().requires_grad_())
            (slope,) = torch.autograd.grad(self.surrogate(probe, settings).sum(), probe.logp)
        return slope


OBJECTIVES: dict[str, Objective] = {
    "owpo": Objective(grpo, token_weight=owpo_weight),
    "owpo_reinforce": Objective(reinforce, token_weight=owpo_weight),
    "reinforce": Objective(reinforce),
    "grpo": Objective(grpo),
    "dr_grpo": Objective(grpo),
    "dapo": Objective(grpo),
    "mc_grpo": Objective(grpo),
    "cispo": Objective(cispo),
    "gspo": Objective(gspo),
    "sapo": Objective(sapo),
    "acpo": Objective(acpo, statistics=acpo_widths),
    "bapo": Objective(bapo, statistics=bapo_bounds),
    "minpro": Objective(minpro),
    "decoupled_ppo": Objective(decoupled_ppo),
    "ppo_ewma": Objective(ppo_ewma),
    "popo": Objective(popo),
    "asymre": Objective(asymre),
    "opmd": Objective(opmd),
    "opd": Objective(distillation),
    "mopd": Objective(distillation),
    "p3o": Objective(p3o, statistics=p3o_ess),
}
"""By the `type` of [learner.objective]."""
