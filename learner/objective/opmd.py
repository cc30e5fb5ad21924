"""OPMD, online policy mirror descent, as in Trinity-RFT (arXiv:2505.17826): no ratio.

    maximize  A log pi / (1 + tau)

with A = R - group mean, or R - tau log mean exp(R / tau) under learner.advantage.baseline = "log_mean_exp".
"""

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.tokens import Tokens
from services.config.objectives.opmd import OpmdObjective


def opmd(tokens: Tokens, settings: OpmdObjective) -> Tensor:
    """A log pi / (1 + tau). [T]."""
    return tokens.advantage * tokens.logp / (1 + settings.tau)


OBJECTIVE = Objective(opmd)
