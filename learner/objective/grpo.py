"""GRPO (arXiv:2402.03300), Dr. GRPO, DAPO, MC-GRPO and the base of OWPO: one surrogate, without a KL term.

What sets them apart is outside: clip range and dual clip, the baseline and deviation ([learner.advantage]), and what
sums are divided by (learner.aggregation).
"""

from torch import Tensor

from learner.objective.surrogate import clipped_surrogate
from learner.objective.tokens import Tokens
from services.config.objective import DapoObjective, DrGrpoObjective, GrpoObjective, McGrpoObjective, OwpoObjective


def grpo(
    tokens: Tokens, settings: GrpoObjective | DrGrpoObjective | DapoObjective | McGrpoObjective | OwpoObjective
) -> Tensor:
    """min(r A, clip(r) A), r = current/proximal; dual clip where set. [T]."""
    return clipped_surrogate(tokens.logp, tokens.proximal_logp, tokens.advantage, settings.clip, settings.dual_clip)
