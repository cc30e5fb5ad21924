"""Multi-teacher on-policy distillation. Its functions: learner/objective/mopd.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from services.config.objectives.base import PLAIN, ObjectiveSettings

if TYPE_CHECKING:
    from services.config.learner import LearnerConfig


class MopdObjective(ObjectiveSettings):
    """Multi-teacher on-policy distillation (our reading): the weighted mean of the teachers' signals, plus the verifier's."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "aggregation": "token_mean", "zero_variance": "train"}
    teachers: ClassVar[tuple[int, int]] = (2, 64)
    type: Literal["mopd"] = "mopd"
    beta: float = Field(default=1.0, gt=0.0)
    """Weight of the mean of log teacher - log student, in nats, on each token."""
    outcome: float = Field(default=1.0, ge=0.0)
    """Weight of the verifier's advantage, added to that. 0: the verdict does not matter."""
    weights: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(strict=False)] = ()
    """One number a teacher, in the order of [[learner.teachers]], of which only the proportions matter. Empty: all alike."""

    def disagreement(self, learner: LearnerConfig) -> str | None:
        if not self.weights or len(self.weights) == len(learner.teachers):
            return None
        return f"has {len(self.weights)} weights for {len(learner.teachers)} teachers; give one each"
