"""BAPO. Its functions: learner/objective/bapo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import DEVIATIONS, DualClip, ObjectiveSettings


class BapoObjective(ObjectiveSettings):
    """BAPO (arXiv:2510.18927): clip bounds that rise in each step until positive advantages weigh as much as negative ones."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    type: Literal["bapo"] = "bapo"
    balance: Annotated[float, SEVERAL_STEPS] = Field(default=1.0, gt=0.0)
    """Ratio of the positive to the negative part that is aimed at. Raise it to favor what was right."""
    low: Annotated[float, SEVERAL_STEPS] = Field(default=0.6, ge=0.0, le=1.0)
    """Where the lower bound of the ratio starts in each step."""
    low_most: Annotated[float, SEVERAL_STEPS] = Field(default=0.8, ge=0.0, le=1.0)
    """How far the lower bound may rise; at least `low`."""
    high: Annotated[float, SEVERAL_STEPS] = Field(default=1.2, ge=1.0)
    """Where the upper bound of the ratio starts in each step."""
    high_most: Annotated[float, SEVERAL_STEPS] = Field(default=2.0, ge=1.0, le=1e9)
    """How far the upper bound may rise; at least `high`. Ratios above e^20, about 5e8, are cut before."""
    stride: Annotated[float, SEVERAL_STEPS] = Field(default=0.05, ge=1e-4)
    """How much a bound rises at a time. A small one finds a tighter balance."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = 3.0
    """Bound on the loss of a token with a negative advantage, in multiples of |A|."""

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> Self:
        if self.low > self.low_most or self.high > self.high_most:
            raise ValueError(
                f"bounds only rise: low <= low_most and high <= high_most, "
                f"not {self.low} and {self.low_most}, {self.high} and {self.high_most}"
            )
        return self
