"""What a step maximizes, as pure functions on ragged tensors.

To add an objective: one file with a class like Grpo, its settings in services/config/learner.py, one line in OBJECTIVES.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from learner.objective.grpo import Grpo
from learner.objective.owpo import Owpo
from services.config.learner import GrpoObjective, OwpoObjective


class Objective(Protocol):
    """The token loss is -token_weight x surrogate; importance weights, masks and sums are the step's."""

    needs_reference: bool
    """Without it no reference forward is made, and ref_logp is the current log-prob."""

    def token_weight(self, logp: Tensor, ref_logp: Tensor, sign: Tensor) -> Tensor:
        """Positive factor on each token, float32 [T], no gradient. sign: of the advantage, in {-1, 0, 1}."""
        ...

    def surrogate(self, logp: Tensor, proximal_logp: Tensor, advantage: Tensor) -> Tensor:
        """What is maximized, float32 [T]; gradient through logp alone. advantage: [T]."""
        ...


OBJECTIVES: dict[str, Callable[[Any], Objective]] = {
    "owpo": Owpo,
    "grpo": Grpo,
}
"""By the `type` of [learner.objective]."""


def make_objective(settings: OwpoObjective | GrpoObjective) -> Objective:
    return OBJECTIVES[settings.type](settings)
