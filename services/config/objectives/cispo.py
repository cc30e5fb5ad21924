"""CISPO. Its functions: learner/objective/cispo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import DEVIATIONS, ClipRange, ObjectiveSettings


class CispoObjective(ObjectiveSettings):
    """CISPO (arXiv:2506.13585): the ratio is clipped, the token never is. Without a lower bound by default."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    proportional: ClassVar[bool] = True
    type: Literal["cispo"] = "cispo"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = ClipRange(low=1.0, high=0.2)
    """Range of the ratio current/proximal that weights the log-prob. Acts only with learner.mini_batches above 1."""
