"""[prompts.sampler], [prompts.mixture], [prompts.skip] and [prompts.adaptive_group]: which prompt is issued next."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Strict
from services.config.effect import OnlyWith


class UniformSampler(Strict):
    """Every problem once an epoch."""

    type: Literal["uniform"] = "uniform"


class ReplaySampler(Strict):
    """Prompt replay: a share of the prompts are problems that were solved about half the time when they were last sampled; the
    others are drawn as by uniform. It gives fewer groups of equal rewards early on."""

    type: Literal["replay"] = "replay"
    share: float = Field(default=0.5, gt=0.0, le=0.9)
    """Share of the prompts that are replayed while there are problems to replay. The rest goes on through the epoch, so that
    no problem is left out."""
    low: float = Field(default=0.25, ge=0.0, le=1.0)
    """Lowest pass rate of a problem that is replayed."""
    high: float = Field(default=0.75, ge=0.0, le=1.0)
    """Highest pass rate of a problem that is replayed."""
    cooldown_steps: int = Field(default=5, ge=1)
    """Learner steps between two prompts of one problem, of which the second is a replay."""
    max_reuses: int = Field(default=4, ge=1)
    """Replays of one problem until its turn comes in the epoch. Raise it for small sets; they may be learned by heart."""

    @model_validator(mode="after")
    def a_half_is_between_the_bounds(self) -> Self:
        if not self.low <= 0.5 <= self.high:
            raise ValueError(
                f"low = {self.low} and high = {self.high} must have 0.5 between them: replay is for problems near it"
            )
        return self


class CurriculumSampler(Strict):
    """Problems by their measured pass rate, from easy to hard: those whose rate is near a target are drawn more often, and the
    target falls."""

    type: Literal["curriculum"] = "curriculum"
    start: float = Field(default=0.75, ge=0.0, le=1.0)
    """Target pass rate at the first step."""
    end: float = Field(default=0.35, ge=0.0, le=1.0)
    """Target pass rate from step `over_steps` on."""
    over_steps: int = Field(default=200, ge=1)
    """Learner steps over which the target moves, in a straight line."""
    width: float = Field(default=0.2, gt=0.0, le=1.0)
    """Distance from the target at which a problem is drawn 0.61 times as often as at the target (one standard deviation)."""
    floor: float = Field(default=0.1, gt=0.0, le=1.0)
    """How often a problem far from the target is drawn, relative to one at the target. 1 is no curriculum."""


class WeightsMixture(Strict):
    """Sources by their weights."""

    type: Literal["weights"] = "weights"


class GroupDroMixture(Strict):
    """Group DRO (arXiv:1911.08731): sources on which the model does badly get more prompts, by exponentiated gradient on their
    weights. Training then looks after the worst source."""

    type: Literal["group_dro"] = "group_dro"
    step_size: float = Field(default=0.05, gt=0.0, le=10.0)
    """Step size of the exponentiated gradient, once a learner step. The loss of a source is 1 minus its mean reward."""
    floor: float = Field(default=0.3, ge=0.01, le=1.0)
    """Part of the prompts that the sources' own weights share out, whatever the losses are."""
    smoothing_groups: int = Field(default=32, ge=1)
    """Groups over which the loss of a source is averaged, exponentially."""


class SkipConfig(Strict):
    """Problems that teach nothing now are left out for a while, and then tried again."""

    solved: bool = False
    """Whether problems that are always solved are left out."""
    unsolved: bool = False
    """Whether problems that are never solved are left out."""
    after: Annotated[int, OnlyWith(".solved", True), OnlyWith(".unsolved", True)] = Field(default=2, ge=1)
    """Groups of a problem in a row, all of whose responses are right, or all wrong, after which it is left out."""
    retry_steps: Annotated[int, OnlyWith(".solved", True), OnlyWith(".unsolved", True)] = Field(default=100, ge=1)
    """Learner steps after which a problem that was left out gets another group."""


class AdaptiveGroupConfig(Strict):
    """Larger groups where rewards vary: a problem with the measured pass rate p gets a group whose size lies between the bounds
    in proportion to 4 p (1 - p). A problem that was not sampled yet gets the group_size of its source."""

    least: int = Field(ge=2)
    """Responses to a problem whose responses were all alike."""
    most: int = Field(ge=2)
    """Responses to a problem that was solved half the time; rollout.max_concurrent_sequences has to hold them."""

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> Self:
        if self.least >= self.most:
            raise ValueError(
                f"least = {self.least} is not below most = {self.most}; lower the first or raise the second"
            )
        return self


SamplerConfig = Annotated[UniformSampler | ReplaySampler | CurriculumSampler, Field(discriminator="type")]
MixtureConfig = Annotated[WeightsMixture | GroupDroMixture, Field(discriminator="type")]
