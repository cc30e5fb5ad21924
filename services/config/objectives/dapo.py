"""DAPO. Its functions: learner/objective/dapo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import DEVIATIONS, ClipRange, DualClip, ObjectiveSettings


class DapoObjective(ObjectiveSettings):
    """DAPO (arXiv:2503.14476): asymmetric clip, token mean, dual clip.

    Its dynamic sampling drops groups whose accuracy does not vary: learner.zero_variance = "drop", as for every objective, with
    learner.zero_variance_of = "verdict", a default of this one. Shaped rewards vary among wrong answers, too.
    """

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean", "zero_variance_of": "verdict"}
    proportional: ClassVar[bool] = True
    type: Literal["dapo"] = "dapo"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = ClipRange()
    """Range of the ratio current/proximal. Acts only with learner.mini_batches above 1."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = 3.0
    """Bound on the loss of a token with a negative advantage, in multiples of |A|."""
