"""POPO. Its functions: learner/objective/popo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from services.config.effect import OnlyAbove
from services.config.objectives.base import PLAIN, Aggregation, Numerator, ObjectiveSettings

FORMER = ("above_one", "similarity")
"""Settings of what `popo` was before."""


class PopoObjective(ObjectiveSettings):
    """POPO (arXiv:2605.06650, by its authors' README): positive responses only, weighed by their own probability among them; a
    predictor, trained with the model, of a slow twin's representation; an entropy bonus."""

    published: ClassVar[Mapping[str, Any]] = {
        **PLAIN,
        "advantage": {"baseline": "positives", "normalize": "none", "positive_above": 0.0},
        "reference": {"type": "ema", "decay": 0.995},
        "zero_variance": "train",  # a group of positive responses alone still teaches
    }
    baselines: ClassVar[tuple[str, ...]] = ("positives",)
    numerator: ClassVar[Numerator] = "none"
    references: ClassVar[tuple[str, ...]] = ("ema",)
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean",)
    type: Literal["popo"] = "popo"
    length_normalized: bool = False
    """Whether the log-probability of a response is its mean over tokens, in the weights and in the likelihood. As published it is
    the sum, so that in practice the most probable positive response of a group has nearly all of the weight."""
    alpha: float = Field(default=0.1, ge=0.0)
    """Weight of the similarity to the twin. 0 turns it off, with the predictor and its memory."""
    beta: float = Field(default=0.01, ge=0.0)
    """Weight of the entropy of positive responses, in nats a token. Raise it when answers become all alike."""
    predictor_width: Annotated[int, OnlyAbove(".alpha", 0)] = Field(default=4096, ge=1)
    """Hidden width of the predictor, a network of two layers. It adds about 2 x width x hidden size parameters to those
    that are trained; choose about the model's hidden size."""
    noise: Annotated[float, OnlyAbove(".alpha", 0)] = Field(default=0.01, ge=0.0)
    """Standard deviation of the noise on the twin's representation."""

    @model_validator(mode="before")
    @classmethod
    def names_the_form_that_it_was(cls, given: Any) -> Any:
        former = [key for key in FORMER if isinstance(given, Mapping) and key in given]
        if former:
            raise ValueError(
                f'{" and ".join(former)} belonged to what "popo" was before it was the published method; that is now '
                'type = "popo_ratio"'
            )
        return given

    @property
    def needs_hidden(self) -> bool:
        return self.alpha > 0

    @property
    def needs_entropy(self) -> bool:
        return self.beta > 0

    @property
    def trains_predictor(self) -> int:
        return self.predictor_width if self.alpha > 0 else 0

    @property
    def reference_noise(self) -> float:
        return self.noise if self.alpha > 0 else 0.0
