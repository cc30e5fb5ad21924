"""A times log-prob, and its relatives without any ratio: AsymRE and OPMD."""

from torch import Tensor

from learner.objective.tokens import Tokens
from services.config.objective import AsymreObjective, OpmdObjective, OwpoReinforceObjective, ReinforceObjective


def reinforce(tokens: Tokens, settings: ReinforceObjective | OwpoReinforceObjective) -> Tensor:
    """A log pi; the importance weight that the step multiplies it with has the current policy above. [T]."""
    return tokens.advantage * tokens.logp


def asymre(tokens: Tokens, settings: AsymreObjective) -> Tensor:
    """(R - (b + shift)) log pi (arXiv:2506.20520). A shift below 0 weighs successes more than failures. [T]."""
    return (tokens.advantage - settings.shift) * tokens.logp


def opmd(tokens: Tokens, settings: OpmdObjective) -> Tensor:
    """A log pi / (1 + tau), as in Trinity-RFT (arXiv:2505.17826); its other baseline is log_mean_exp. [T]."""
    return tokens.advantage * tokens.logp / (1 + settings.tau)
