"""SAPO (arXiv:2511.20347): a sigmoid gate on the ratio; its slope at r = 1 is A, and it fades on both sides."""

import torch
from torch import Tensor

from learner.objective.surrogate import ratio
from learner.objective.tokens import Tokens
from services.config.objective import SapoObjective


def sapo(tokens: Tokens, settings: SapoObjective) -> Tensor:
    """(4 / tau) sigmoid(tau (r - 1)) A, tau by the sign of A, r = current/proximal. [T]. At r = 1 it is 2 A / tau."""
    r = ratio(tokens.logp, tokens.proximal_logp)
    tau = torch.where(
        tokens.advantage > 0,
        torch.full_like(r, settings.tau_positive),
        torch.full_like(r, settings.tau_negative),
    )
    return 4 / tau * torch.sigmoid(tau * (r - 1)) * tokens.advantage
