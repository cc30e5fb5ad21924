"""GRPO. Its functions: learner/objective/grpo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import DEVIATIONS, SYMMETRIC, ClipRange, DualClip, ObjectiveSettings


class GrpoObjective(ObjectiveSettings):
    """GRPO (arXiv:2402.03300) without its KL term: group mean and sample deviation, clipped surrogate."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    proportional: ClassVar[bool] = True
    type: Literal["grpo"] = "grpo"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = SYMMETRIC
    """Range of the ratio current/proximal. Acts only with learner.mini_batches above 1."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = None
    """Bound on the loss of a token with a negative advantage, in multiples of |A|; unset: none."""
