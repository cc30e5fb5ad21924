"""[learner]: the optimizer step, its objective and its control."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from services.config.base import Host, Strict
from services.config.model import TeacherConfig
from services.config.objectives.base import Aggregation
from services.config.objectives.owpo import OwpoObjective
from services.config.objectives.registry import ObjectiveConfig, settings_class
from services.errors import InputError


class OptimizerConfig(Strict):
    """AdamW, the limits on its gradients, and the learning rate over the run."""

    learning_rate: float = Field(default=1e-6, gt=0.0)
    """Peak learning rate, before the schedule and the ESS factor. Small models take more: 1e-4 for a few million
    parameters."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay (AdamW) per step, times the learning rate."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Adam's momentum: decay of the mean gradient."""
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of Adam's mean squared gradient: it remembers about 1 / (1 - beta2) steps. Keep that longer than a stretch in
    which nearly all rewards are equal and gradients are small."""
    eps: float = Field(default=1e-8, ge=1e-30)
    """Added to Adam's denominator, in float32: a smaller one would be 0 there."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Gradients are clipped to this Euclidean norm over all parameters."""
    max_grad_norm_ratio: float = Field(default=2.0, ge=0.0)
    """Gradients are also clipped to this multiple of the mean norm of recent ones. 0 disables this limit; it must otherwise
    be above 1."""
    schedule: Literal["constant", "linear"] = "constant"
    """Learning rate after warm-up: constant, or linear from learning_rate to final_fraction of it at the last step."""
    final_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of learning_rate at the last step, with schedule = "linear"; ignored otherwise."""
    warmup_steps: int = Field(default=0, ge=0)
    """Learner steps in which the learning rate rises linearly to learning_rate; 0 begins at the full rate."""

    @field_validator("max_grad_norm_ratio")
    @classmethod
    def leaves_room(cls, ratio: float) -> float:
        if 0.0 < ratio <= 1.0:
            raise ValueError(
                f"{ratio} would cut every gradient and the mean with it; use more than 1, or 0 for no such limit"
            )
        return ratio


class AdvantageConfig(Strict):
    """How rewards become advantages within a group."""

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
    """The number subtracted from each reward of a group. mean: the group's mean. leave_one_out: the mean of the other
    responses. length_weighted: the mean weighted by response length. median: needs an odd group size; the pivot itself is
    left out. log_mean_exp: tau log mean exp(R / tau). positives: no baseline; only rewards above `positive_above` count,
    equally within their group. minimum_variance: the off-policy optimal baseline (arXiv:2602.17616), with a proxy for the
    gradient norms computed from the logits. minimum_variance_exact: with the norms themselves, at the cost of one backward
    per sequence and two more gradients in memory; use it to check the proxy."""
    normalize: Literal["none", "sample_std", "population_std", "mean", "median_deviation"] = "none"
    """What advantages are divided by. none: nothing. sample_std: the group's sample standard deviation plus 1e-6 (GRPO).
    population_std: its population standard deviation. mean: its mean reward (MaxRL), which gives hard prompts more weight; for
    rewards of at least 0, and a group whose mean is not above 0 has no advantages. median_deviation: the median distance
    from the median plus 1e-3, times the fraction of rewards that differ from the median (MC-GRPO's released code); needs
    the baseline median."""
    tau: float = Field(default=1.0, gt=0.0)
    """Temperature of the baseline log_mean_exp, in units of reward; the other baselines ignore it."""
    positive_above: float = 0.5
    """Rewards above this count as positive under the baseline positives; the other baselines ignore it."""

    @model_validator(mode="after")
    def median_deviations_are_from_the_median(self) -> Self:
        if self.normalize == "median_deviation" and self.baseline != "median":
            raise ValueError(
                f'normalize = "median_deviation" needs baseline = "median", not "{self.baseline}"; set it, or use "sample_std"'
            )
        return self


class ImportanceConfig(Strict):
    """Importance weights current/behavior, or proximal/behavior for the clipped objectives."""

    level: Literal["token", "sequence", "prefix", "none"] = "sequence"
    """Tokens over which ratios are multiplied: the token alone, the whole sequence, or the sequence up to the token. none:
    every weight is 1."""
    action: Literal["truncate", "mask", "reject"] = "truncate"
    """What happens to weights outside the bounds. truncate: they are cut to the cap. mask: their tokens are left out.
    reject: their whole sequences are left out. Denominators still count what is left out."""
    cap: float = Field(default=8.0, ge=1.0, le=1e30)
    """Upper bound of a weight. Lower it when a few sequences dominate a step (a low ESS ratio); that adds bias."""
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """Lower bound of a weight, for mask and reject; truncation has none."""

    @model_validator(mode="after")
    def truncation_has_no_floor(self) -> Self:
        if self.action == "truncate" and self.floor > 0:
            raise ValueError(f'floor = {self.floor} has no effect with action = "truncate"; use mask or reject')
        return self


class EssConfig(Strict):
    """The learning rate follows the effective sample size: rate x max(floor, rule(min(1, ess_ratio / full_ratio)))."""

    enabled: bool = True
    """Whether the learning rate is scaled by the ESS ratio. Objectives other than OWPO turn it off unless told otherwise."""
    rule: Literal["sqrt", "linear"] = "sqrt"
    """How the factor follows the ESS ratio: its square root, or the ratio itself."""
    full_ratio: float = Field(default=1.0, gt=0.0, le=1.0)
    """The ESS ratio at and above which a step is taken whole. Lower it where engine and learner differ numerically, so that
    even on-policy steps stay below 1; or measure it with calibrate_steps."""
    calibrate_steps: int = Field(default=0, ge=0)
    """If above 0, full_ratio is the median ESS ratio of the first calibrate_steps steps, which are synchronous and taken
    whole."""
    floor: float = Field(default=0.1, ge=0.0, le=1.0)
    """The smallest factor: however low the ESS ratio, the learning rate keeps this fraction."""

    @model_validator(mode="after")
    def full_ratio_is_given_or_measured(self) -> Self:
        if self.calibrate_steps and self.full_ratio != 1.0:
            raise ValueError(
                f"full_ratio = {self.full_ratio} is given and calibrate_steps = {self.calibrate_steps} would measure it; "
                "leave one of them out"
            )
        return self


class LagControl(Strict):
    """A closed loop, off by default: groups are issued fewer steps ahead while the ESS ratio is below the target, and more
    steps ahead, up to max_lag, while it is above."""

    enabled: bool = False
    """Whether the lag follows the ESS ratio. Without it groups are issued up to max_lag steps ahead."""
    target_ess_ratio: float = Field(default=0.6, gt=0.0, lt=1.0)
    """The ESS ratio, relative to ess.full_ratio, that the lag is steered to."""
    band: float = Field(default=0.1, ge=0.0, lt=0.5)
    """The lag stays as it is while the mean ESS ratio is within this distance of the target."""
    smoothing_steps: int = Field(default=5, ge=1)
    """Learner steps over which the ESS ratio is averaged before the lag may change."""
    least: int = Field(default=1, ge=0)
    """Learner steps ahead that groups may always be issued; 0 lets the loop go down to synchronous training."""


class ReferenceCopy(Strict):
    """How the reference's weights are kept between two forwards, which run in the model's dtype."""

    dtype: Literal["model", "bfloat16"] = "model"
    """Dtype that the reference is kept in. bfloat16 halves its memory when the model is in float32, and rounds it."""
    offload: bool = False
    """Whether the reference is kept in host memory and on the device only during a forward. Saves the device's memory and
    costs a copy per step."""


class ReferenceConfig(ReferenceCopy):
    """The ratchet: reference := current every few optimizer steps."""

    type: Literal["ratchet"] = "ratchet"
    every_steps: int = Field(default=50, ge=1)
    """Optimizer steps between swaps. A shorter period lets the policy move away faster."""
    gated: bool = True
    """Whether a swap happens only if the smoothed pass rate did not fall since the last one."""
    tolerance: float = Field(default=0.02, ge=0.0)
    """A fall of the pass rate up to this, as a fraction, counts as none. Raise it when the pass rate is noisy."""
    smoothing_steps: int = Field(default=10, ge=1)
    """Learner steps over which the pass rate is averaged."""
    roll_back: float | None = Field(default=None, lt=1.0)
    """If the pass rate falls by more than this fraction after a swap, the reference returns to the one before it, which
    costs the memory of another copy. By default swaps are never taken back."""

    @model_validator(mode="after")
    def a_roll_back_needs_a_fall(self) -> Self:
        if self.roll_back is not None and self.roll_back <= self.tolerance:
            raise ValueError(
                f"roll_back = {self.roll_back} is within tolerance = {self.tolerance}, up to which a fall counts as none; "
                "raise roll_back or lower tolerance"
            )
        return self


class EmaReference(ReferenceCopy):
    """A moving average: reference := decay x reference + (1 - decay) x current after every optimizer step, in float32."""

    type: Literal["ema"] = "ema"
    decay: float = Field(default=0.99, ge=0.0, le=1.0)
    """Weight of the past: the reference averages about 1 / (1 - decay) optimizer steps."""
    debiased: bool = False
    """Whether the weights that the run began with count like those of one step more, as in PPO-EWMA. Otherwise they hold
    decay to the power of the steps taken, most of the average in the first 1 / (1 - decay) steps."""

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


Ingredient = Literal[
    "model.path",
    "learner.teachers",
    "seed",
    "prompts.source",
    "prompts.grader",
    "prompts.template",
    "prompts.shuffle",
    "evaluation.prompts",
    "versions",
]
"""What a run is made of, each by the setting that names it; services/run/made_of.py compares them."""


def _split(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class CheckpointConfig(Strict):
    """When the learner saves what it needs to go on after a stop or a crash."""

    every_steps: int = Field(default=50, ge=1)
    """Learner steps between checkpoints. After a crash at most this many steps are repeated; a clean stop saves one too."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept on disk, the newest ones."""
    accept_changed: Annotated[tuple[Ingredient, ...], BeforeValidator(_split), Field(strict=False)] = ()
    """What may differ from what the checkpoint was trained on: "model.path", "seed", "prompts.source", "prompts.grader",
    "prompts.template", "prompts.shuffle", "learner.teachers", "evaluation.prompts" or "versions". A run that goes on with
    another model, other problems or other versions is refused otherwise."""


class LearnerConfig(Strict):
    """The optimizer step, its objective and its control. An objective other than OWPO may bring other defaults for this
    section, those that it was published with; `ratchet config` shows what applies."""

    renamed: ClassVar[Mapping[str, str]] = {"age_rule": "stale_tokens"}

    steps: int = Field(ge=1)
    """Learner steps of the run. A finished run goes on when this is raised."""
    groups_per_step: int = Field(ge=1)
    """Groups that one learner step trains on. More give a less noisy gradient and take longer to sample."""
    max_lag: int = Field(default=2, ge=0)
    """Learner steps that a group may be behind when it is trained on; 0 is synchronous training. Raise it when the learner
    waits for groups, lower it when the ESS ratio is low."""
    lag_control: LagControl = LagControl()
    """Lets the ESS ratio choose the lag."""
    stale_tokens: Literal["train", "drop", "mask"] = "drop"
    """What happens to tokens sampled more than max_lag steps before the learner's version, or after it, by weights that a
    restart took back. train: nothing. drop: their group is dropped and replaced. mask: they are left out of the loss."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    objective: ObjectiveConfig = OwpoObjective()
    """The loss; docs/objectives.md compares them."""
    aggregation: Aggregation = "sequence_mean"
    """How token losses are added up. sequence_mean: the mean of each response, then over responses. token_mean: the mean
    over all tokens of the step. constant: each response's sum divided by constant_tokens, then the mean over responses."""
    constant_tokens: int | None = Field(default=None, ge=1)
    """Tokens by which a response's sum is divided with aggregation = "constant", which needs it, and which alone may have it;
    use rollout.sampling.max_tokens."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer steps per learner step, each on its share of the groups. More than 1 makes the clip of an objective bind."""
    advantage: AdvantageConfig = AdvantageConfig()
    """How rewards become advantages."""
    importance: ImportanceConfig = ImportanceConfig()
    """Importance weights of the objectives that use them."""
    ess: EssConfig = EssConfig()
    """How the learning rate follows the effective sample size."""
    reference: Annotated[Reference, Field(discriminator="type")] = ReferenceConfig()
    """The reference policy, for the objectives that have one."""
    teachers: Annotated[tuple[TeacherConfig, ...], Field(strict=False)] = ()
    """Models to distill from, for the objectives opd and mopd; none by default."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When checkpoints are written."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: what ranks share out among them. 0 nothing, 1 optimizer state, 2 gradients too, 3 parameters
    too. Raise it when memory runs out on several ranks."""
    ranks: int = Field(default=1, ge=1)
    """Learner processes that `ratchet up` starts, one GPU each; across several hosts torchrun decides."""
    row_tokens: int = Field(default=4096, ge=2)
    """Tokens of one packed row; at least model.max_length. Larger rows pack better and need more memory."""
    packed_rows: bool = True
    """Whether a row holds several sequences. At the start the learner compares packed sequences with the same ones alone; where
    the model does not keep them apart (recurrent layers, OPT), it turns this off by itself and warns. Rows of one sequence
    are padded to the longest of their micro-batch."""
    rows_per_micro_batch: int = Field(default=1, ge=1)
    """Packed rows of one forward and backward. Raise it while memory allows: if all groups of a step fit into one
    micro-batch, the baseline minimum_variance needs no extra forward."""
    head_chunk_tokens: int = Field(default=1024, ge=1)
    """Response tokens whose logits are in memory at once. Lower it for large vocabularies when memory runs out."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward instead of kept. Saves memory, costs about one more forward."""
    truncated: Literal["train", "mask"] = "train"
    """What happens to responses cut by max_tokens: trained on, or left out of the loss."""
    zero_variance: Literal["drop", "train"] = "drop"
    """What happens to groups whose rewards are all equal: dropped and replaced, or kept for objectives that learn from
    them."""
    zero_variance_of: Literal["reward", "verdict"] = "reward"
    """What zero_variance compares. reward: rewards, up to rounding. verdict: verdicts as well, so that a group of wrong answers
    which differ in shaping alone (length, form) has no variance, and neither has one of right answers. With rewards that are
    graded in between, such as a judge's, use reward."""
    max_skipped_steps: int = Field(default=5, ge=1)
    """Consecutive steps skipped for a value that is not finite, after which the run stops."""
    max_unusable_groups: int = Field(default=200, ge=1)
    """Groups in a row with nothing to train on, such as equal rewards, after which the run stops with examples of them. It
    holds until the first group that counts; later ten times as many may come. A group that died counts for ten."""
    cpu_threads: int = Field(default=1, ge=1)
    """Compute threads of each learner process that `ratchet up` starts. Raise it where cores are idle."""
    metrics_host: Host = "127.0.0.1"
    """Address that the learner's /healthz, /readyz and /metrics listen on; "0.0.0.0" for all interfaces."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the learner's /healthz, /readyz and /metrics. 0 takes any free port, recorded in the run folder."""

    @model_validator(mode="before")
    @classmethod
    def with_published_settings(cls, given: Any) -> Any:
        """Fill in what the objective was published with, where the run file says nothing."""
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
        if self.aggregation != "constant" and self.constant_tokens is not None:
            raise ValueError(
                f"learner.constant_tokens = {self.constant_tokens} has no effect with learner.aggregation = "
                f'"{self.aggregation}"; leave it out, or set aggregation = "constant"'
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
    """What the run file gives, completed by the published section, unless it names another type than that one has."""
    if not (isinstance(given, Mapping) and isinstance(published, Mapping)):
        return given
    return given if given.get("type", published.get("type")) != published.get("type") else {**published, **given}
