"""SAPO (arXiv:2511.20347): a sigmoid gate on the ratio in place of a clip.

    maximize  (4 / tau) sigmoid(tau (r - 1)) A,   r = current / proximal,   tau by the sign of A

Its slope at r = 1 is A, and it fades on both sides; its value at r = 1 is 2 A / tau.
"""

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import ratio
from learner.objective.tokens import Tokens
from services.config.objectives.sapo import SapoObjective


def sapo(tokens: Tokens, settings: SapoObjective) -> Tensor:
    """(4 / tau) sigmoid(tau (r - 1)) A, tau_positive where A > 0 and tau_negative elsewhere. [T]."""
    r = ratio(tokens.logp, tokens.proximal_logp)
    tau = torch.where(
        tokens.advantage > 0,
        torch.full_like(r, settings.tau_positive),
        torch.full_like(r, settings.tau_negative),
    )
    return 4 / tau * torch.sigmoid(tau * (r - 1)) * tokens.advantage


OBJECTIVE = Objective(sapo)
