"""One-Way Policy Optimization over the clipped surrogate. Its functions: learner/objective/owpo.py."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import ClipRange, DualClip, ObjectiveSettings


class OneWaySettings(ObjectiveSettings):
    """What the two forms of OWPO share: a bounded weight on each token by where the policy is relative to the reference."""

    proportional: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = ("ratchet", "ema", "fixed")
    weight_low: float = Field(default=0.5)
    """Smallest one-way weight, above 0 and at most 1. 1 turns gain locking off: tokens ahead of the reference keep their pace."""
    weight_high: float = Field(default=2.0)
    """Largest one-way weight, at least 1. 1 turns acceleration off: tokens behind the reference are not sped up."""

    @model_validator(mode="after")
    def bounds_enclose_one(self) -> Self:
        if not 0.0 < self.weight_low <= 1.0 <= self.weight_high:
            raise ValueError(
                f"the one-way bounds must enclose 1: 0 < weight_low <= 1 <= weight_high, "
                f"not weight_low = {self.weight_low}, weight_high = {self.weight_high}"
            )
        return self


class OwpoObjective(OneWaySettings):
    """OWPO (arXiv:2605.22156; our reading): one-way weights on the clipped surrogate. The defaults of [learner] are its own."""

    type: Literal["owpo"] = "owpo"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = ClipRange()
    """Range of the ratio current/proximal. Acts only with learner.mini_batches above 1."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = None
    """Bound on the loss of a token with a negative advantage, in multiples of |A|; unset: none."""
