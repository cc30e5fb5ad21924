"""Settings of the objective `topr`. Every service reads them, so nothing here imports torch."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from services.config.objectives.base import PLAIN, Numerator, ObjectiveSettings


class ToprObjective(ObjectiveSettings):
    """TOPR (arXiv:2503.14286; our reading): a truncated importance ratio for what is pushed down, none for what is pushed up."""

    implementation: ClassVar[str | None] = "ratchet_objective_topr.functions:OBJECTIVE"
    published: ClassVar[Mapping[str, Any]] = PLAIN
    numerator: ClassVar[Numerator] = "none"
    proportional: ClassVar[bool] = True
    type: Literal["topr"] = "topr"
    cap: float = Field(default=1.0, gt=0.0, le=1.0)
    """Largest weight of a response with a negative advantage. Lower it when pushing stale responses down makes a run unstable."""
