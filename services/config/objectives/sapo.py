"""SAPO. Its functions: learner/objective/sapo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import DEVIATIONS, ObjectiveSettings


class SapoObjective(ObjectiveSettings):
    """SAPO (arXiv:2511.20347): a soft gate on the ratio in place of a clip, narrower for negative advantages."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    proportional: ClassVar[bool] = True
    type: Literal["sapo"] = "sapo"
    tau_positive: Annotated[float, SEVERAL_STEPS] = Field(default=1.0, gt=0.0)
    """Steepness of the gate for positive advantages. A larger one lets a token go sooner as its ratio leaves 1."""
    tau_negative: Annotated[float, SEVERAL_STEPS] = Field(default=1.05, gt=0.0)
    """Steepness of the gate for negative advantages. Raise it when pushing tokens down makes the run unstable."""
