"""P3O (arXiv:1905.01756): the effective sample size takes the place of two settings, the ratio cap and the KL weight.

    maximize  sg[min(rho, ESS)] A log pi - (1 - ESS) KL(behavior || current),   rho = current / behavior

The KL is estimated by log behavior - log current on the tokens that the behavior policy sampled. The paper's separate on-policy
term is left out: here every batch is off policy, by however little. Groups whose rewards are all equal have the KL term, so they
are kept (learner.zero_variance = "train").
"""

import torch
from torch import Tensor

from learner.objective.base import Objective
from learner.objective.ess import ess_ratio
from learner.objective.surrogate import LOG_RATIO_LIMIT
from learner.objective.tokens import Tokens
from services.config.objectives.p3o import P3oObjective


def p3o_ess(tokens: Tokens, settings: P3oObjective) -> Tensor:
    """Effective sample size of the ratios current/behavior over the tokens of the step, in (0, 1]. float64 [1]."""
    log_ratio = tokens.current_logp.double() - tokens.behavior_logp.double()
    return torch.tensor([ess_ratio(log_ratio)], dtype=torch.float64, device=log_ratio.device)


def p3o(tokens: Tokens, settings: P3oObjective) -> Tensor:
    """sg[min(rho, ESS)] A log pi - (1 - ESS) (log behavior - log current). [T]. tokens.statistics: the ESS."""
    ess = tokens.statistics.to(tokens.logp)
    log_r = (tokens.current_logp - tokens.behavior_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    capped = torch.minimum(log_r.exp(), ess)
    return capped * tokens.advantage * tokens.logp - (1 - ess) * (tokens.behavior_logp - tokens.logp)


OBJECTIVE = Objective(p3o, statistics=p3o_ess)
