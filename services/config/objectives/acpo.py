"""ACPO. Its functions: learner/objective/acpo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import DEVIATIONS, DualClip, ObjectiveSettings


class AcpoObjective(ObjectiveSettings):
    """ACPO (arXiv:2606.22570): tokens in bins of their probability, and a clip for each bin, as wide as its ratios scatter."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    proportional: ClassVar[bool] = True
    type: Literal["acpo"] = "acpo"
    bins: Annotated[int, SEVERAL_STEPS] = Field(default=5, ge=1, le=10_000)
    """Equal parts of [0, 1] that token probabilities are sorted into. More bins need more tokens a step."""
    alpha: Annotated[float, SEVERAL_STEPS] = Field(default=3.0, ge=0.0)
    """Width added to `base` for each unit of standard deviation of the bin's ratios. 0 makes it PPO's clip."""
    base: Annotated[float, SEVERAL_STEPS] = Field(default=0.2, ge=0.0)
    """Width of a bin whose ratios do not scatter, or that is empty."""
    narrowest: Annotated[float, SEVERAL_STEPS] = Field(default=0.0, ge=0.0)
    """Smallest width of any bin; at most `base`."""
    widest: Annotated[float, SEVERAL_STEPS] = Field(default=3.0, ge=0.0)
    """Largest width of any bin; at least `base`. Lower it to hold rare tokens closer."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = 3.0
    """Bound on the loss of a token with a negative advantage, in multiples of |A|."""

    @model_validator(mode="after")
    def widths_are_in_order(self) -> Self:
        if not self.narrowest <= self.base <= self.widest:
            raise ValueError(
                f"the clip widths must be in order: narrowest <= base <= widest, "
                f"not {self.narrowest}, {self.base}, {self.widest}"
            )
        return self
