"""POPO (arXiv:2605.06650; our reading): learns from positive responses alone, at a bounded distance from a slow twin.

The twin is the moving average of the weights (the reference policy). Which responses are positive, and that each group
weighs alike, is in the advantage (`positives`). The paper's similarity penalty in representation space is not here.
"""

from torch import Tensor

from learner.objective.gspo import sequence_ratio
from learner.objective.tokens import Tokens
from services.config.objective import PopoObjective


def popo(tokens: Tokens, settings: PopoObjective) -> Tensor:
    """A min(s, 1 + above_one), s the sequence's geometric mean ratio current/twin. [T]; nothing where A <= 0."""
    s = sequence_ratio(tokens, tokens.reference_logp)
    return s.clamp(max=1 + settings.above_one) * tokens.advantage.clamp(min=0)
