"""What the settings of every objective have in common, and the pieces that several of them share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Strict

if TYPE_CHECKING:
    from services.config.learner import LearnerConfig

Aggregation = Literal["sequence_mean", "token_mean", "constant"]
Numerator = Literal["current", "proximal", "none"]
SMALLEST_NUMBER = 1e-30
LARGEST_NUMBER = 1e30

PLAIN: Mapping[str, Any] = {
    "ess": {"enabled": False},
    "optimizer": {"max_grad_norm_ratio": 0.0},
    "advantage": {"baseline": "mean", "normalize": "none"},
}
"""Published with the group mean as baseline, and without the variance control that OWPO has."""
DEVIATIONS: Mapping[str, Any] = {**PLAIN, "advantage": {"baseline": "mean", "normalize": "sample_std"}}
"""The same, with advantages divided by the sample standard deviation of their group."""


class ObjectiveSettings(Strict):
    """Base of every objective's settings. The class variables say what the objective is; the fields are its settings."""

    type: str
    """Name of the objective in run files. A subclass narrows it: `type: Literal["cispo"] = "cispo"`."""

    implementation: ClassVar[str | None] = None
    """Where the learner finds the functions, as "module:name" of a learner.objective.base.Objective. None, for Ratchet's own:
    OBJECTIVE in learner/objective/NAME.py."""
    published: ClassVar[Mapping[str, Any]] = {}
    """Defaults of other keys and sections of [learner] under this objective. What the run file says takes precedence."""
    numerator: ClassVar[Numerator] = "proximal"
    """Policy above the behavior policy in the importance weight that the step multiplies with ([learner.importance]). "none": the
    objective weights tokens by itself, or not at all."""
    references: ClassVar[tuple[str, ...]] = ()
    """Types of [learner.reference] that the objective works with, the usual one first. Empty: no reference is scored."""
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean", "token_mean", "constant")
    """Values of learner.aggregation that it is defined for, the usual one first."""
    teachers: ClassVar[tuple[int, int]] = (0, 0)
    """Smallest and largest number of [[learner.teachers]]."""
    proportional: ClassVar[bool] = False
    """Whether a sequence's gradient is proportional to its advantage as long as the sign stays the same. The exact
    minimum-variance baseline needs that."""
    baselines: ClassVar[tuple[str, ...]] = ()
    """Values of learner.advantage.baseline without which it would be another method. Empty: any."""

    @model_validator(mode="before")
    @classmethod
    def sections_keep_their_defaults(cls, given: Any) -> Any:
        """Fill a section that is given in part from this objective's defaults, not from those of the section's class."""
        if not isinstance(given, Mapping):
            return given
        own = {name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, Strict)}
        return {
            name: {**own[name].model_dump(), **value} if name in own and isinstance(value, Mapping) else value
            for name, value in given.items()
        }

    @model_validator(mode="after")
    def numbers_fit_float32(self) -> Self:
        """Losses are computed in float32, which has no place for other numbers: they would become 0 or infinite in a step."""
        for name, number in _numbers(self):
            if number != 0 and not SMALLEST_NUMBER <= abs(number) <= LARGEST_NUMBER:
                raise ValueError(
                    f"{name} = {number} is outside of what a loss can be computed with; use "
                    f"{SMALLEST_NUMBER:g} to {LARGEST_NUMBER:g} in size"
                )
        return self

    @property
    def needs_proximal(self) -> bool:
        """Whether the proximal policy is scored where a batch gets several optimizer steps."""
        return self.numerator == "proximal"

    @property
    def needs_hidden(self) -> bool:
        """Whether the objective reads the mean hidden state of each sequence."""
        return False

    @property
    def needs_entropy(self) -> bool:
        """Whether the objective has a gradient through the entropy of tokens, which makes the head's backward dearer."""
        return False

    @property
    def trains_predictor(self) -> int:
        """Width of the predictor that the objective trains next to the model (learner/engine/predictor.py); 0: none."""
        return 0

    @property
    def reference_noise(self) -> float:
        """Standard deviation of the normal noise added to each mean hidden state of the reference."""
        return 0.0

    def disagreement(self, learner: LearnerConfig) -> str | None:
        """What in the rest of [learner] contradicts these settings, or None. Completes a sentence about the objective."""
        return None


def _numbers(section: Strict) -> Iterator[tuple[str, float]]:
    """Every number in a section, with its key."""
    for name, value in section:
        if isinstance(value, Strict):
            yield from ((f"{name}.{inner}", number) for inner, number in _numbers(value))
        elif isinstance(value, float):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((f"{name}[{place}]", number) for place, number in enumerate(value) if isinstance(number, float))


class ClipRange(Strict):
    """Clip of a ratio to [1 - low, 1 + high]. It acts only where a batch gets several optimizer steps (learner.mini_batches)."""

    low: float = Field(default=0.2, ge=0.0, le=1.0)
    """How far below 1 the ratio may fall; 1 means without bound. Lower it to hold the policy closer to the batch's."""
    high: float = Field(default=0.28, ge=0.0)
    """How far above 1 the ratio may rise. Raise it for more exploration, lower it when the entropy or the KL runs away."""


SYMMETRIC = ClipRange(low=0.2, high=0.2)
"""PPO's published range."""

DualClip = Annotated[float | None, Field(gt=1.0)]
"""With a negative advantage A the loss of a token is at most this many times |A| (arXiv:1912.09729). None: no such bound."""
