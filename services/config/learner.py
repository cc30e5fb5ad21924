"""[learner]: the optimizer step, its objective and its control."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from services.config.base import Strict
from services.config.model import TeacherConfig
from services.config.objectives.base import Aggregation
from services.config.objectives.owpo import OwpoObjective
from services.config.objectives.registry import ObjectiveConfig, settings_class
from services.errors import InputError


class OptimizerConfig(Strict):
    learning_rate: float = Field(default=1e-6, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Adam's memory of how large gradients are, some 1 / (1 - beta2) steps: longer than a calm in which rewards are equal."""
    eps: float = Field(default=1e-8, gt=0.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    max_grad_norm_ratio: float = Field(default=2.0, ge=0.0)
    """A gradient is cut to so many times the mean norm of recent ones, too; 0: it is not."""
    schedule: Literal["constant", "linear"] = "constant"
    """linear: from learning_rate to final_fraction of it over learner.steps."""
    final_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    warmup_steps: int = Field(default=0, ge=0)

    @field_validator("max_grad_norm_ratio")
    @classmethod
    def leaves_room(cls, ratio: float) -> float:
        if 0.0 < ratio <= 1.0:
            raise ValueError(
                f"{ratio} would cut every gradient and the mean with it; use more than 1, or 0 for no such limit"
            )
        return ratio


class AdvantageConfig(Strict):
    baseline: Literal[
        "mean",
        "leave_one_out",
        "length_weighted",
        "median",
        "log_mean_exp",
        "positives",
        "minimum_variance",
        "minimum_variance_exact",
    ] = "minimum_variance"
    """minimum_variance: the off-policy optimal baseline, with the logit proxy for the gradient norms. Exact: with the norms
    themselves, one backward a sequence and two more gradients in memory. median: needs an odd group size; the pivot is left
    out. positives: no baseline, only rewards above `positive_above` count, alike within their group."""
    normalize: Literal["none", "sample_std", "population_std"] = "none"
    tau: float = Field(default=1.0, gt=0.0)
    """Of log_mean_exp: tau log mean exp(R / tau)."""
    positive_above: float = 0.5
    """Of positives: a reward up to this is not one."""


class ImportanceConfig(Strict):
    """Importance weights current/behavior, or proximal/behavior for the clipped objectives."""

    level: Literal["token", "sequence", "prefix", "none"] = "sequence"
    """Over which tokens the ratios are multiplied: one, all of the sequence, or those up to here."""
    action: Literal["truncate", "mask", "reject"] = "truncate"
    """Beyond the bounds: cut to the cap, the tokens left out, or their whole sequence; denominators count them still."""
    cap: float = Field(default=8.0, ge=1.0)
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """Lower bound of mask and reject; truncation has none."""

    @model_validator(mode="after")
    def truncation_has_no_floor(self) -> Self:
        if self.action == "truncate" and self.floor > 0:
            raise ValueError(f'floor = {self.floor} says nothing under action = "truncate"; use mask or reject')
        return self


class EssConfig(Strict):
    """Learning rate x max(floor, rule(min(1, ess_ratio / full_ratio)))."""

    enabled: bool = True
    rule: Literal["sqrt", "linear"] = "sqrt"
    full_ratio: float = Field(default=1.0, gt=0.0, le=1.0)
    """The ESS ratio at which the step is taken whole."""
    calibrate_steps: int = Field(default=0, ge=0)
    """Above 0: full_ratio is the median ESS ratio of the first so many steps instead, which are synchronous and taken whole."""
    floor: float = Field(default=0.1, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def full_ratio_is_given_or_measured(self) -> Self:
        if self.calibrate_steps and self.full_ratio != 1.0:
            raise ValueError(
                f"full_ratio = {self.full_ratio} is given and calibrate_steps = {self.calibrate_steps} would measure it; "
                "leave one of them out"
            )
        return self


class LagControl(Strict):
    """Closed loop, off by default: groups are issued fewer steps ahead while the ESS ratio is below the target, and more
    steps ahead, up to max_lag, while it is above."""

    enabled: bool = False
    target_ess_ratio: float = Field(default=0.6, gt=0.0, lt=1.0)
    band: float = Field(default=0.1, ge=0.0, lt=0.5)
    """Nothing moves while the mean is within this of the target."""
    smoothing_steps: int = Field(default=5, ge=1)
    least: int = Field(default=1, ge=0)
    """Steps ahead that are always allowed; 0 is synchronous."""


class ReferenceCopy(Strict):
    """Of every type: how the reference's weights are kept between two forwards, which are in the model's dtype."""

    dtype: Literal["model", "bfloat16"] = "model"
    """bfloat16: rounded to it, half the memory when the model is in float32."""
    offload: bool = False
    """In host memory; on the device only for the length of a forward."""


class ReferenceConfig(ReferenceCopy):
    """The ratchet: reference := current every so many optimizer steps."""

    type: Literal["ratchet"] = "ratchet"
    every_steps: int = Field(default=50, ge=1)
    gated: bool = True
    """Only when the smoothed pass rate did not fall since the last time."""
    tolerance: float = Field(default=0.02, ge=0.0)
    """A fall of the pass rate up to this counts as none."""
    smoothing_steps: int = Field(default=10, ge=1)
    """The pass rate is a mean over so many steps."""
    roll_back: float | None = Field(default=None, lt=1.0)
    """When the pass rate since the last swap is below that at the swap by more than this, the reference is again the one
    before it, which costs the memory of another copy. None: what was swapped stays."""

    @model_validator(mode="after")
    def a_roll_back_needs_a_fall(self) -> Self:
        if self.roll_back is not None and self.roll_back <= self.tolerance:
            raise ValueError(
                f"roll_back = {self.roll_back} is within tolerance = {self.tolerance}, up to which a fall counts as none; "
                "raise roll_back or lower tolerance"
            )
        return self


class EmaReference(ReferenceCopy):
    """reference := decay x reference + (1 - decay) x current after every optimizer step, in float32."""

    type: Literal["ema"] = "ema"
    decay: float = Field(default=0.99, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def averages_in_float32(self) -> Self:
        if self.dtype == "bfloat16":
            raise ValueError(
                'dtype = "bfloat16" would round away what one step adds to a moving average, which is kept in float32; '
                "leave dtype out, and set offload = true if it does not fit"
            )
        return self


class FixedReference(ReferenceCopy):
    """The weights that the run began with."""

    type: Literal["fixed"] = "fixed"


Reference = ReferenceConfig | EmaReference | FixedReference


class CheckpointConfig(Strict):
    every_steps: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1)


class LearnerConfig(Strict):
    renamed: ClassVar[Mapping[str, str]] = {"age_rule": "stale_tokens"}

    steps: int = Field(ge=1)
    groups_per_step: int = Field(ge=1)
    max_lag: int = Field(default=2, ge=0)
    """Steps that a group may be behind; 0 is synchronous."""
    lag_control: LagControl = LagControl()
    stale_tokens: Literal["train", "drop", "mask"] = "drop"
    """What happens to tokens older than max_lag: trained on all the same, their group dropped, or left out of the loss."""
    optimizer: OptimizerConfig = OptimizerConfig()
    objective: ObjectiveConfig = OwpoObjective()
    aggregation: Aggregation = "sequence_mean"
    constant_tokens: int | None = Field(default=None, ge=1)
    """Of aggregation = "constant": what a sequence's sum is divided by, as rollout.sampling.max_tokens."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer steps a batch, each on its share of the groups."""
    advantage: AdvantageConfig = AdvantageConfig()
    importance: ImportanceConfig = ImportanceConfig()
    ess: EssConfig = EssConfig()
    reference: Annotated[Reference, Field(discriminator="type")] = ReferenceConfig()
    teachers: Annotated[tuple[TeacherConfig, ...], Field(strict=False)] = ()
    checkpoint: CheckpointConfig = CheckpointConfig()
    zero_stage: Literal[0, 1, 2, 3] = 1
    ranks: int = Field(default=1, ge=1)
    """Learner processes that `ratchet up` starts; on several hosts torchrun decides."""
    row_tokens: int = Field(default=4096, ge=2)
    """Token budget of one packed row."""
    rows_per_micro_batch: int = Field(default=1, ge=1)
    """Room for every group in one micro-batch spares the baseline `minimum_variance` a forward."""
    head_chunk_tokens: int = Field(default=1024, ge=1)
    """Response tokens whose logits are in memory at once."""
    gradient_checkpointing: bool = False
    truncated: Literal["train", "mask"] = "train"
    """Responses cut by max_tokens: trained on, or left out of the loss."""
    zero_variance: Literal["drop", "train"] = "drop"
    """Groups whose rewards are all equal: dropped and replaced, or trained on by objectives that learn from them."""
    max_skipped_steps: int = Field(default=5, ge=1)
    """Consecutive non-finite steps after which the run stops."""
    cpu_threads: int = Field(default=1, ge=1)
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)

    @model_validator(mode="before")
    @classmethod
    def with_published_settings(cls, given: Any) -> Any:
        """Fill in what comes with the objective and was not given."""
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        objective = filled.get("objective")
        kind = objective.get("type") if isinstance(objective, Mapping) else getattr(objective, "type", None)
        for key, value in _published(kind).items():
            filled[key] = _filled(filled[key], value) if key in filled else value
        reference = filled.get("reference")
        if isinstance(reference, Mapping):
            filled["reference"] = {"type": "ratchet", **reference}
        return filled

    @model_validator(mode="after")
    def lag_control_has_room(self) -> Self:
        if self.lag_control.enabled and self.lag_control.least >= self.max_lag:
            raise ValueError(
                f"learner.lag_control.least = {self.lag_control.least} leaves nothing to control below "
                f"learner.max_lag = {self.max_lag}; raise max_lag or lower least"
            )
        return self

    @model_validator(mode="after")
    def roll_back_comes_before_the_next_swap(self) -> Self:
        reference = self.reference
        if reference.type != "ratchet" or reference.roll_back is None:
            return self
        needed = reference.smoothing_steps * self.mini_batches
        if reference.every_steps < needed:
            raise ValueError(
                f"learner.reference.roll_back = {reference.roll_back} asks for the pass rate of learner.reference."
                f"smoothing_steps = {reference.smoothing_steps} steps since a swap, and the next swap comes before them; "
                f"raise learner.reference.every_steps = {reference.every_steps} to {needed}, or lower smoothing_steps"
            )
        return self

    @model_validator(mode="after")
    def objective_has_what_it_needs(self) -> Self:
        objective, kind = self.objective, f'learner.objective.type = "{self.objective.type}"'
        if self.aggregation not in objective.aggregations:
            raise ValueError(
                f'{kind} is defined with learner.aggregation = "{objective.aggregations[0]}", not "{self.aggregation}"'
            )
        if self.aggregation == "constant" and self.constant_tokens is None:
            raise ValueError(
                'learner.aggregation = "constant" needs learner.constant_tokens; set it to rollout.sampling.max_tokens'
            )
        if objective.references and self.reference.type not in objective.references:
            raise ValueError(
                f'{kind} needs learner.reference.type = "{objective.references[0]}", not "{self.reference.type}"'
            )
        least, most = objective.teachers
        if not least <= len(self.teachers) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ValueError(f"{kind} takes {wanted} [[learner.teachers]], not {len(self.teachers)}")
        if objective.baselines and self.advantage.baseline not in objective.baselines:
            raise ValueError(
                f'{kind} is defined with learner.advantage.baseline = "{objective.baselines[0]}", '
                f'not "{self.advantage.baseline}"'
            )
        if disagreement := objective.disagreement(self):
            raise ValueError(f"{kind} {disagreement}")
        if self.advantage.baseline == "minimum_variance_exact" and not objective.proportional:
            raise ValueError(
                f'{kind} is not proportional to the advantage, which learner.advantage.baseline = "minimum_variance_exact" '
                'relies on; use "minimum_variance"'
            )
        if objective.numerator == "none" and self.importance != ImportanceConfig():
            raise ValueError(f"{kind} weighs for itself; leave [learner.importance] out")
        return self


def _published(kind: object) -> Mapping[str, Any]:
    """What the objective of this type was published with; nothing where the field itself will say what is wrong."""
    try:
        return settings_class(kind).published if isinstance(kind, str) else {}
    except InputError:
        return {}


def _filled(given: Any, published: Any) -> Any:
    """A section that names another type than the published one has nothing of it."""
    if not (isinstance(given, Mapping) and isinstance(published, Mapping)):
        return given
    return given if given.get("type", published.get("type")) != published.get("type") else {**published, **given}
