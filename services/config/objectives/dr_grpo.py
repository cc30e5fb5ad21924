"""Dr. GRPO. Its functions: learner/objective/dr_grpo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import PLAIN, SYMMETRIC, Aggregation, ClipRange, DualClip, ObjectiveSettings


class DrGrpoObjective(ObjectiveSettings):
    """Dr. GRPO (arXiv:2503.20783): GRPO without deviation, and without the response's length in the denominator."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "aggregation": "constant"}
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("constant",)
    proportional: ClassVar[bool] = True
    type: Literal["dr_grpo"] = "dr_grpo"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = SYMMETRIC
    """Range of the ratio current/proximal. Acts only with learner.mini_batches above 1."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = None
    """Bound on the loss of a token with a negative advantage, in multiples of |A|; unset: none."""
