"""The surrogate that the two forms of distillation on the student's own samples share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from learner.objective.surrogate import ratio
from learner.objective.tokens import Tokens


def distillation(tokens: Tokens, beta: float, outcome: float, weights: Sequence[float]) -> Tensor:
    """r sg[beta sum_k w_k (log teacher_k - log proximal) + outcome A], r = current/proximal. [T].

    weights: one a teacher, of which only the proportions matter. In expectation the signal is -KL(student || teacher); unlike a
    one-way weight it can turn a token against its verdict.
    """
    shares = torch.as_tensor(weights).to(tokens.logp)
    teacher = (shares[:, None] / shares.sum() * tokens.teacher_logp).sum(0)
    signal = beta * (teacher - tokens.proximal_logp) + outcome * tokens.advantage
    return ratio(tokens.logp, tokens.proximal_logp) * signal.detach()
