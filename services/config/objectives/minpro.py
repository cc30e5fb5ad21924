"""MinPRO. Its functions: learner/objective/minpro.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from services.config.objectives.base import DEVIATIONS, Numerator, ObjectiveSettings


class MinproObjective(ObjectiveSettings):
    """MinPRO (our reading): each token weighted by its ratio times the smallest ratio before it, in place of their product."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    numerator: ClassVar[Numerator] = "none"
    proportional: ClassVar[bool] = True
    type: Literal["minpro"] = "minpro"
    cap: float = Field(default=8.0, ge=1.0)
    """Largest weight of a token. Lower it when gradients are spiky under stale data."""
