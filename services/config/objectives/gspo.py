"""GSPO. Its functions: learner/objective/gspo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import DEVIATIONS, Aggregation, ClipRange, ObjectiveSettings


class GspoObjective(ObjectiveSettings):
    """GSPO (arXiv:2507.18071): PPO's clip on the geometric mean of a sequence's ratios."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean",)
    proportional: ClassVar[bool] = True
    type: Literal["gspo"] = "gspo"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = ClipRange(low=3e-4, high=4e-4)
    """Range of the sequence's ratio, far narrower than a token's: a mean over many tokens scatters less. Acts only with
    learner.mini_batches above 1."""
