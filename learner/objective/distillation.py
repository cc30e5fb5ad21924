"""Distillation on the student's own samples: OPD from one teacher, MOPD from several (our reading)."""

import torch
from torch import Tensor

from learner.objective.surrogate import ratio
from learner.objective.tokens import Tokens
from services.config.objective import MopdObjective, OpdObjective


def distillation(tokens: Tokens, settings: OpdObjective | MopdObjective) -> Tensor:
    """r (beta sum_k w_k (log pi_k - log pi_proximal) + outcome A), the bracket under a stop-gradient. [T].

    r = current/proximal; w_k the teachers' weights, summing to 1. The expected signal is -KL(student || teacher); unlike
    a one-way weight it can turn a token against its verdict.
    """
    weights = torch.as_tensor(getattr(settings, "weights", ()) or [1.0] * len(tokens.teacher_logp)).to(tokens.logp)
    teacher = (weights[:, None] / weights.sum() * tokens.teacher_logp).sum(0)
    signal = settings.beta * (teacher - tokens.proximal_logp) + settings.outcome * tokens.advantage
    return ratio(tokens.logp, tokens.proximal_logp) * signal.detach()
