"""MaxRL. Its functions: learner/objective/maxrl.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import PLAIN, SYMMETRIC, ClipRange, DualClip, ObjectiveSettings


class MaxrlObjective(ObjectiveSettings):
    """MaxRL (arXiv:2602.02710): advantages over the group's mean reward, which approaches maximum likelihood as groups grow.

    For rewards of at least 0.
    """

    published: ClassVar[Mapping[str, Any]] = {
        **PLAIN,
        "aggregation": "token_mean",
        "advantage": {"baseline": "mean", "normalize": "mean"},
    }
    proportional: ClassVar[bool] = True
    type: Literal["maxrl"] = "maxrl"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = SYMMETRIC
    """Range of the ratio current/proximal. Acts only with learner.mini_batches above 1."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = None
    """Bound on the loss of a token with a negative advantage, in multiples of |A|; unset: none."""
