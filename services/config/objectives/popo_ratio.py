"""Positive responses at a bounded ratio. Its functions: learner/objective/popo_ratio.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from services.config.objectives.base import PLAIN, Aggregation, Numerator, ObjectiveSettings


class PopoRatioObjective(ObjectiveSettings):
    """Positive responses only, at a bounded ratio to a moving average of the weights. Ours: what `popo` was before the
    equations of its authors (arXiv:2605.06650) were known."""

    published: ClassVar[Mapping[str, Any]] = {
        **PLAIN,
        "advantage": {"baseline": "positives", "normalize": "none"},
        "reference": {"type": "ema", "decay": 0.99},
        "zero_variance": "train",  # a group of positive responses alone still teaches
    }
    baselines: ClassVar[tuple[str, ...]] = ("positives",)
    numerator: ClassVar[Numerator] = "none"
    references: ClassVar[tuple[str, ...]] = ("ema",)
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean",)
    type: Literal["popo_ratio"] = "popo_ratio"
    above_one: float = Field(default=0.2, ge=0.0)
    """How far above 1 a sequence's geometric mean ratio to the average counts; beyond it the sequence has no gradient."""
    similarity: float = Field(default=0.01, ge=0.0)
    """Weight of 1 - cosine between a positive sequence's mean hidden states under the current weights and the average: a penalty
    between 0 and twice this. 0 turns it off and saves the hidden states' memory."""

    @property
    def needs_hidden(self) -> bool:
        return self.similarity > 0
