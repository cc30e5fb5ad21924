"""AsymRE. Its functions: learner/objective/asymre.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from services.config.objectives.base import PLAIN, Numerator, ObjectiveSettings


class AsymreObjective(ObjectiveSettings):
    """AsymRE (arXiv:2506.20520): REINFORCE off policy without a ratio, its baseline shifted below the mean."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "zero_variance": "train"}  # the shift is their advantage
    numerator: ClassVar[Numerator] = "none"
    type: Literal["asymre"] = "asymre"
    shift: float = -0.1
    """Added to the baseline, in units of reward. Below 0 it weights successes more than failures; lower it for staler data."""
