"""[learner]: the optimizer step, its objective and its control."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.config.advantage import AdvantageConfig, ImportanceConfig
from services.config.base import Host, Strict
from services.config.checkpoint import CheckpointConfig
from services.config.chosen import Chosen, settled
from services.config.control import EssConfig, LagControl
from services.config.effect import OnlyAbove, OnlyWith
from services.config.lora import LoraConfig
from services.config.model import TeacherConfig
from services.config.objectives.base import Aggregation
from services.config.objectives.owpo import OwpoObjective
from services.config.objectives.registry import ObjectiveConfig, settings_class
from services.config.optimizer import OptimizerConfig
from services.config.reference import Reference, ReferenceConfig
from services.config.shaping import ShapingConfig
from services.errors import InputError


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
    order: Literal["arrival", "dispatch"] = "arrival"
    """In which order groups are trained on. arrival: as they come, short responses first. dispatch: as their prompts were
    issued (FIFO), so that short responses are not preferred, and a step waits for the oldest group. Choose it where
    responses differ much in length; docs/operating.md has what either costs."""
    window_fraction: Annotated[float, OnlyWith(".order", "dispatch")] = Field(default=0.0, ge=0, le=1)
    """How many younger groups may overtake the oldest, as a fraction of the (max_lag + 1) x groups_per_step that may be
    outstanding (windowed FIFO). 0 lets none; raise it, to 0.3 say, when steps wait for single slow groups."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""
    lora: LoraConfig | None = None
    """Adapters of low rank, trained instead of the model's own weights; without this section every weight is trained."""
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
    shaping: ShapingConfig | None = None
    """What is made of the verifier's rewards before advantages are taken; without this section nothing."""
    advantage: Annotated[AdvantageConfig, OnlyAbove("learner.objective.outcome", 0)] = AdvantageConfig()
    """How rewards become advantages."""
    importance: ImportanceConfig = ImportanceConfig()
    """Importance weights of the objectives that use them."""
    ess: EssConfig = EssConfig()
    """How the learning rate follows the effective sample size."""
    reference: Annotated[Reference, Field(discriminator="type"), OnlyWith("learner.objective.references")] = (
        ReferenceConfig()
    )
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
    the model does not keep them apart (recurrent layers), it turns this off by itself and warns. Rows of one sequence are
    padded to the longest of their micro-batch."""
    rows_per_micro_batch: int = Field(default=1, ge=1)
    """Packed rows of one forward and backward. Raise it while memory allows: if all groups of a step fit into one
    micro-batch, the baseline minimum_variance needs no extra forward."""
    head_chunk_tokens: int | None = Field(default=None, ge=1)
    """Response tokens whose logits are in memory at once, in up to two float32 tensors. By default as many as take 1 GiB on a
    GPU, 128 MiB on a CPU: 883 and 110 of a vocabulary of 152,000. Lower it when memory runs out."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward instead of kept. Saves memory, costs about one more forward."""
    truncated: Literal["train", "mask"] = "train"
    """What happens to responses cut by max_tokens: trained on, or left out of the loss."""
    zero_variance: Literal["drop", "train"] = "drop"
    """What happens to groups whose rewards are all equal: dropped and replaced, or kept for objectives that learn from
    them."""
    zero_variance_of: Annotated[Literal["reward", "verdict"], OnlyWith(".zero_variance", "drop")] = "reward"
    """What zero_variance compares. reward: rewards, up to rounding. verdict: verdicts as well, so that a group of wrong answers
    which differ in shaping alone (length, form) has no variance, and neither has one of right answers. With rewards that are
    graded in between, such as a judge's, use reward."""
    max_skipped_steps: int = Field(default=5, ge=1)
    """Consecutive steps skipped for a value that is not finite, after which the run stops."""
    max_unusable_groups: int = Field(default=200, ge=1)
    """Groups in a row with nothing to train on, such as equal rewards, after which the run stops with examples of them. It
    holds until the first group that counts; later ten times as many may come. A group that died counts for ten."""
    kept_groups_mib: int = Field(default=16, ge=0)
    """MiB of the newest groups, with what the step saw of each token, that the run folder keeps for the page's inspector; 0 keeps
    none. At most a twentieth of it is written after one step: raise it to see more groups of long responses."""
    cpu_threads: Chosen = "auto"
    """Compute threads of each learner process that `ratchet up` starts. auto: its share of half the cores on CPU, and 1 on GPU
    (docs/deploying.md)."""
    metrics_host: Host = "127.0.0.1"
    """Address that the learner's /healthz, /readyz and /metrics listen on; "0.0.0.0" for all interfaces."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the learner's /healthz, /readyz and /metrics. 0 takes any free port, recorded in the run folder."""

    @property
    def threads(self) -> int:
        """learner.cpu_threads; 1 where nobody has chosen a number yet."""
        return settled(self.cpu_threads)

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
