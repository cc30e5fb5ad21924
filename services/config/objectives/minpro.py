"""MinPRO. Its functions: learner/objective/minpro.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.config.objectives.base import DEVIATIONS, ClipRange, Numerator, ObjectiveSettings


class MinproObjective(ObjectiveSettings):
    """MinPRO (our reading): each token weighted by its ratio times the smallest ratio before it, in place of their product."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    numerator: ClassVar[Numerator] = "none"
    proportional: ClassVar[bool] = True
    type: Literal["minpro"] = "minpro"
    cap: float = Field(default=8.0, ge=1.0)
    """Largest weight of a token. Lower it when gradients are spiky under stale data."""
    clip: ClipRange | None = None
    """Range of a token's weight in place of `cap`, the form in which a survey states the method (second-hand: the paper was not
    available). Without it weights have no lower bound."""

    @model_validator(mode="after")
    def one_bound_of_the_two(self) -> Self:
        if self.clip is not None and "cap" in self.model_fields_set:
            raise ValueError(f"cap = {self.cap} has no effect next to clip; leave one of them out")
        return self
