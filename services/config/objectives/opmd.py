"""OPMD. Its functions: learner/objective/opmd.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from services.config.objectives.base import PLAIN, Numerator, ObjectiveSettings

if TYPE_CHECKING:
    from services.config.learner import LearnerConfig


class OpmdObjective(ObjectiveSettings):
    """OPMD (arXiv:2505.17826): online policy mirror descent without a ratio."""

    published: ClassVar[Mapping[str, Any]] = PLAIN
    numerator: ClassVar[Numerator] = "none"
    type: Literal["opmd"] = "opmd"
    tau: float = Field(default=1.0, ge=0.0)
    """Strength of the pull to the policy before: the gradient is divided by 1 + tau. Must equal learner.advantage.tau where the
    baseline is log_mean_exp."""

    def disagreement(self, learner: LearnerConfig) -> str | None:
        if learner.advantage.baseline != "log_mean_exp" or learner.advantage.tau == self.tau:
            return None
        return (
            f"has one tau, of the loss and of its baseline; learner.objective.tau = {self.tau} and "
            f"learner.advantage.tau = {learner.advantage.tau} differ"
        )
