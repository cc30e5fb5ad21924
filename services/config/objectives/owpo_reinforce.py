"""One-Way Policy Optimization over REINFORCE. Its functions: learner/objective/owpo_reinforce.py."""

from typing import ClassVar, Literal

from services.config.objectives.base import Numerator
from services.config.objectives.owpo import OneWaySettings


class OwpoReinforceObjective(OneWaySettings):
    """One-way weights (our reading) on REINFORCE: no clip, importance weights of the current policy."""

    numerator: ClassVar[Numerator] = "current"
    type: Literal["owpo_reinforce"] = "owpo_reinforce"
