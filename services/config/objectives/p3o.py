"""P3O. Its functions: learner/objective/p3o.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from services.config.objectives.base import DEVIATIONS, Numerator, ObjectiveSettings


class P3oObjective(ObjectiveSettings):
    """P3O (arXiv:1905.01756): the step's effective sample size caps the ratios, and 1 - it weights the KL term."""

    published: ClassVar[Mapping[str, Any]] = {
        **DEVIATIONS,
        "aggregation": "token_mean",
        "zero_variance": "train",  # they have a KL term
    }
    numerator: ClassVar[Numerator] = "none"
    type: Literal["p3o"] = "p3o"
