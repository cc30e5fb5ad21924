"""[learner.objective]: one class an objective, each with its own settings and what it was published with.

What `published` holds are the defaults of other settings of [learner] under that objective: what a run file says goes
before it, and `--dry-run` shows what came of it. OWPO brings nothing: the defaults of [learner] are its own.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Strict

Aggregation = Literal["sequence_mean", "token_mean", "constant"]
Numerator = Literal["current", "proximal", "none"]

PLAIN: Mapping[str, Any] = {
    "ess": {"enabled": False},
    "optimizer": {"max_grad_norm_ratio": 0.0},
    "advantage": {"baseline": "mean", "normalize": "none"},
}
DEVIATIONS: Mapping[str, Any] = {**PLAIN, "advantage": {"baseline": "mean", "normalize": "sample_std"}}


class ObjectiveSettings(Strict):
    """Base of every objective's settings."""

    published: ClassVar[Mapping[str, Any]] = {}
    """Section or key of [learner] -> what it is under this objective unless the run file says otherwise."""
    numerator: ClassVar[Numerator] = "proximal"
    """Above the behavior policy in [learner.importance]; none: the objective weighs for itself, or not at all."""
    references: ClassVar[tuple[str, ...]] = ()
    """Types of [learner.reference] that it can work with; empty: it needs none, and none is scored."""
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean", "token_mean", "constant")
    teachers: ClassVar[tuple[int, int]] = (0, 0)
    """Least and most teachers."""
    proportional: ClassVar[bool] = False
    """Whether a sequence's gradient grows in proportion to its advantage, as long as that keeps its sign."""
    baselines: ClassVar[tuple[str, ...]] = ()
    """Values of [learner.advantage] baseline without which it is another method; empty: any."""

    @model_validator(mode="before")
    @classmethod
    def sections_keep_their_defaults(cls, given: Any) -> Any:
        """A section of which a part is given is otherwise this objective's own, not that of the section's class."""
        if not isinstance(given, Mapping):
            return given
        own = {name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, Strict)}
        return {
            name: {**own[name].model_dump(), **value} if name in own and isinstance(value, Mapping) else value
            for name, value in given.items()
        }

    @property
    def needs_proximal(self) -> bool:
        """Whether several optimizer steps a batch need the log-probs of the weights that it began with."""
        return self.numerator == "proximal"

    @property
    def needs_hidden(self) -> bool:
        """Whether it looks at the last hidden states, which the engine otherwise keeps to itself."""
        return False


class ClipRange(Strict):
    """PPO clip of the ratio current/proximal to [1 - low, 1 + high]; binds only when a batch is stepped on more than once."""

    low: float = Field(default=0.2, ge=0.0, le=1.0)
    high: float = Field(default=0.28, ge=0.0)


DualClip = Annotated[float | None, Field(gt=1.0)]
"""With a negative advantage the loss of a token is at most so many times |A| (arXiv:1912.09729)."""


class _OneWay(ObjectiveSettings):
    proportional: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = ("ratchet", "ema", "fixed")
    weight_low: float = 0.5
    weight_high: float = 2.0

    @model_validator(mode="after")
    def bounds_enclose_one(self) -> Self:
        if not 0.0 < self.weight_low <= 1.0 <= self.weight_high:
            raise ValueError(
                f"the one-way bounds must enclose 1: 0 < weight_low <= 1 <= weight_high, "
                f"not weight_low = {self.weight_low}, weight_high = {self.weight_high}"
            )
        return self


class OwpoObjective(_OneWay):
    """One-Way Policy Optimization (arXiv:2605.22156; our reading) over the clipped surrogate."""

    type: Literal["owpo"] = "owpo"
    clip: ClipRange = ClipRange()
    dual_clip: DualClip = None


class OwpoReinforceObjective(_OneWay):
    """One-Way Policy Optimization (our reading) over REINFORCE: no clip, importance weights of the current policy."""

    numerator: ClassVar[Numerator] = "current"
    type: Literal["owpo_reinforce"] = "owpo_reinforce"


class ReinforceObjective(ObjectiveSettings):
    """REINFORCE with truncated importance weights of the current policy, which every optimizer step computes anew."""

    published: ClassVar[Mapping[str, Any]] = PLAIN
    numerator: ClassVar[Numerator] = "current"
    proportional: ClassVar[bool] = True
    type: Literal["reinforce"] = "reinforce"


class GrpoObjective(ObjectiveSettings):
    """Group-relative policy optimization with the clipped surrogate."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    proportional: ClassVar[bool] = True
    type: Literal["grpo"] = "grpo"
    clip: ClipRange = ClipRange(low=0.2, high=0.2)
    dual_clip: DualClip = None


class DrGrpoObjective(ObjectiveSettings):
    """GRPO done right (arXiv:2503.20783): no deviation, no length in the denominator."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "aggregation": "constant"}
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("constant",)
    proportional: ClassVar[bool] = True
    type: Literal["dr_grpo"] = "dr_grpo"
    clip: ClipRange = ClipRange(low=0.2, high=0.2)
    dual_clip: DualClip = None


class DapoObjective(ObjectiveSettings):
    """DAPO (arXiv:2503.14476): asymmetric clip, token mean, dual clip. Groups without variance are dropped for all objectives."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    proportional: ClassVar[bool] = True
    type: Literal["dapo"] = "dapo"
    clip: ClipRange = ClipRange()
    dual_clip: DualClip = 3.0


class McGrpoObjective(ObjectiveSettings):
    """MC-GRPO: the group's median as baseline, the pivot left out. Needs an odd rollout.sampling.group_size."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "advantage": {"baseline": "median", "normalize": "none"}}
    baselines: ClassVar[tuple[str, ...]] = ("median",)
    type: Literal["mc_grpo"] = "mc_grpo"
    clip: ClipRange = ClipRange(low=0.2, high=0.2)
    dual_clip: DualClip = None


class CispoObjective(ObjectiveSettings):
    """CISPO (arXiv:2506.13585): the ratio is clipped, not the token; no lower bound by default."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    proportional: ClassVar[bool] = True
    type: Literal["cispo"] = "cispo"
    clip: ClipRange = ClipRange(low=1.0, high=0.2)


class GspoObjective(ObjectiveSettings):
    """GSPO (arXiv:2507.18071): clip of the sequence's geometric mean ratio."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean",)
    proportional: ClassVar[bool] = True
    type: Literal["gspo"] = "gspo"
    clip: ClipRange = ClipRange(low=3e-4, high=4e-4)


class SapoObjective(ObjectiveSettings):
    """SAPO: a soft gate on the ratio instead of a clip, narrower for negative advantages."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    proportional: ClassVar[bool] = True
    type: Literal["sapo"] = "sapo"
    tau_positive: float = Field(default=1.0, gt=0.0)
    tau_negative: float = Field(default=1.05, gt=0.0)


class AcpoObjective(ObjectiveSettings):
    """ACPO (arXiv:2606.22570): a clip for each bin of token probability, as wide as the ratios in it scatter."""

    published: ClassVar[Mapping[str, Any]] = DEVIATIONS
    proportional: ClassVar[bool] = True
    type: Literal["acpo"] = "acpo"
    bins: int = Field(default=5, ge=1)
    alpha: float = Field(default=3.0, ge=0.0)
    base: float = Field(default=0.2, ge=0.0)
    narrowest: float = Field(default=0.0, ge=0.0)
    widest: float = Field(default=3.0, ge=0.0)
    dual_clip: DualClip = 3.0

    @model_validator(mode="after")
    def widths_are_in_order(self) -> Self:
        if not self.narrowest <= self.base <= self.widest:
            raise ValueError(
                f"the clip widths must be in order: narrowest <= base <= widest, "
                f"not {self.narrowest}, {self.base}, {self.widest}"
            )
        return self


class BapoObjective(ObjectiveSettings):
    """BAPO (arXiv:2510.18927): clip bounds of the step that balance what positive and negative advantages weigh."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    type: Literal["bapo"] = "bapo"
    balance: float = Field(default=1.0, gt=0.0)
    """Positive over negative part that is aimed at."""
    low: float = Field(default=0.6, ge=0.0, le=1.0)
    low_most: float = Field(default=0.8, ge=0.0, le=1.0)
    high: float = Field(default=1.2, ge=1.0)
    high_most: float = Field(default=2.0, ge=1.0)
    stride: float = Field(default=0.05, gt=0.0)
    dual_clip: DualClip = 3.0

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> Self:
        if self.low > self.low_most or self.high > self.high_most:
            raise ValueError(
                f"bounds only rise: low <= low_most and high <= high_most, "
                f"not {self.low} and {self.low_most}, {self.high} and {self.high_most}"
            )
        return self


class MinproObjective(ObjectiveSettings):
    """MinPRO (our reading): each token weighed by its ratio times the smallest before it, in place of their product."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    numerator: ClassVar[Numerator] = "none"
    proportional: ClassVar[bool] = True
    type: Literal["minpro"] = "minpro"
    cap: float = Field(default=8.0, ge=1.0)


class DecoupledPpoObjective(ObjectiveSettings):
    """Decoupled PPO (arXiv:2110.00641, arXiv:2505.24298): the clip centered on the proximal policy, its mismatch bounded."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    numerator: ClassVar[Numerator] = "none"
    proportional: ClassVar[bool] = True
    type: Literal["decoupled_ppo"] = "decoupled_ppo"
    proximal: Literal["exact", "log_linear"] = "exact"
    """exact: scored with the weights at the start of the batch. log_linear: between behavior and current, by lag."""
    mismatch_cap: float = Field(default=5.0, ge=1.0)
    """On the mismatch ratio proximal/behavior of each token."""
    above_cap: Literal["mask", "truncate"] = "mask"
    clip: ClipRange = ClipRange(low=0.2, high=0.2)
    dual_clip: DualClip = None

    @property
    def needs_proximal(self) -> bool:
        return self.proximal == "exact"


class PpoEwmaObjective(ObjectiveSettings):
    """PPO-EWMA (arXiv:2110.00641): decoupled PPO whose proximal policy is a moving average of the weights."""

    published: ClassVar[Mapping[str, Any]] = {
        **DEVIATIONS,
        "aggregation": "token_mean",
        "reference": {"type": "ema", "decay": 0.889},  # centre of mass: 8 optimizer steps
    }
    numerator: ClassVar[Numerator] = "none"
    references: ClassVar[tuple[str, ...]] = ("ema",)
    proportional: ClassVar[bool] = True
    type: Literal["ppo_ewma"] = "ppo_ewma"
    cap: float = Field(default=10.0, ge=1.0)
    """On current/behavior and on average/behavior."""
    clip: ClipRange = ClipRange(low=0.2, high=0.2)


class PopoObjective(ObjectiveSettings):
    """POPO (arXiv:2605.06650; our reading): positive responses only, bounded ratio to a moving average of the weights."""

    published: ClassVar[Mapping[str, Any]] = {
        **PLAIN,
        "advantage": {"baseline": "positives", "normalize": "none"},
        "reference": {"type": "ema", "decay": 0.99},
        "zero_variance": "train",  # of positive responses alone it learns too
    }
    baselines: ClassVar[tuple[str, ...]] = ("positives",)
    numerator: ClassVar[Numerator] = "none"
    references: ClassVar[tuple[str, ...]] = ("ema",)
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean",)
    type: Literal["popo"] = "popo"
    above_one: float = Field(default=0.2, ge=0.0)
    """A sequence's geometric mean ratio counts up to 1 + this."""
    similarity: float = Field(default=0.01, ge=0.0)
    """Times 1 - cosine of a positive sequence's mean hidden states, current and average: between 0 and twice this."""

    @property
    def needs_hidden(self) -> bool:
        return self.similarity > 0


class AsymreObjective(ObjectiveSettings):
    """AsymRE: REINFORCE off policy without a ratio, the baseline shifted below the mean."""

    published: ClassVar[Mapping[str, Any]] = PLAIN
    numerator: ClassVar[Numerator] = "none"
    type: Literal["asymre"] = "asymre"
    shift: float = -0.1
    """Added to the baseline."""


class OpmdObjective(ObjectiveSettings):
    """OPMD: online policy mirror descent without a ratio."""

    published: ClassVar[Mapping[str, Any]] = PLAIN
    numerator: ClassVar[Numerator] = "none"
    type: Literal["opmd"] = "opmd"
    tau: float = Field(default=1.0, ge=0.0)


class OpdObjective(ObjectiveSettings):
    """On-policy distillation from the one teacher in learner.teachers."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "aggregation": "token_mean", "zero_variance": "train"}
    teachers: ClassVar[tuple[int, int]] = (1, 1)
    type: Literal["opd"] = "opd"
    beta: float = Field(default=1.0, gt=0.0)
    """Times teacher - student log-prob."""
    outcome: float = Field(default=0.0, ge=0.0)
    """Times the advantage from the verifier."""


class MopdObjective(ObjectiveSettings):
    """Multi-teacher on-policy distillation (our reading): the weighted mean of the teachers' signals, and the verifier's."""

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "aggregation": "token_mean", "zero_variance": "train"}
    teachers: ClassVar[tuple[int, int]] = (2, 64)
    type: Literal["mopd"] = "mopd"
    beta: float = Field(default=1.0, gt=0.0)
    outcome: float = Field(default=1.0, ge=0.0)
    weights: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(strict=False)] = ()
    """One a teacher, in the order of learner.teachers; none: all alike. Only their proportions matter."""


class P3oObjective(ObjectiveSettings):
    """P3O (arXiv:1905.01756): the ESS of the step as cap of the ratios, and one less it as weight of the KL term."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    numerator: ClassVar[Numerator] = "none"
    type: Literal["p3o"] = "p3o"


ObjectiveConfig = (
    OwpoObjective
    | OwpoReinforceObjective
    | ReinforceObjective
    | GrpoObjective
    | DrGrpoObjective
    | DapoObjective
    | McGrpoObjective
    | CispoObjective
    | GspoObjective
    | SapoObjective
    | AcpoObjective
    | BapoObjective
    | MinproObjective
    | DecoupledPpoObjective
    | PpoEwmaObjective
    | PopoObjective
    | AsymreObjective
    | OpmdObjective
    | OpdObjective
    | MopdObjective
    | P3oObjective
)
