"""On-policy distillation. Its functions: learner/objective/opd.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from services.config.objectives.base import PLAIN, ObjectiveSettings


class OpdObjective(ObjectiveSettings):
    """On-policy distillation from the one teacher in [[learner.teachers]]."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "aggregation": "token_mean", "zero_variance": "train"}
    teachers: ClassVar[tuple[int, int]] = (1, 1)
    type: Literal["opd"] = "opd"
    beta: float = Field(default=1.0, gt=0.0)
    """Weight of log teacher - log student, in nats, on each token."""
    outcome: float = Field(default=0.0, ge=0.0)
    """Weight of the verifier's advantage, added to that. 0: the verdict does not matter."""
