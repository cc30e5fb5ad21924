"""REINFORCE. Its functions: learner/objective/reinforce.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from services.config.objectives.base import PLAIN, Numerator, ObjectiveSettings


class ReinforceObjective(ObjectiveSettings):
    """REINFORCE with truncated importance weights of the current policy, computed again for every optimizer step."""

    published: ClassVar[Mapping[str, Any]] = PLAIN
    numerator: ClassVar[Numerator] = "current"
    proportional: ClassVar[bool] = True
    type: Literal["reinforce"] = "reinforce"
