"""[learner]: the optimizer step, its objective and its control."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Strict


class OptimizerConfig(Strict):
    learning_rate: float = Field(default=1e-6, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    eps: float = Field(default=1e-8, gt=0.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    schedule: Literal["constant", "linear"] = "constant"
    """linear: from learning_rate to final_fraction of it over learner.steps."""
    final_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    warmup_steps: int = Field(default=0, ge=0)


class ClipRange(Strict):
    """PPO clip of the ratio current/proximal to [1 - low, 1 + high]; binds only when a batch is stepped on more than once."""

    low: float = Field(default=0.2, ge=0.0, le=1.0)
    high: float = Field(default=0.28, ge=0.0)


class OwpoObjective(Strict):
    """One-Way Policy Optimization (arXiv:2605.22156; our reading)."""

    type: Literal["owpo"] = "owpo"
    weight_low: float = 0.5
    weight_high: float = 2.0
    clip: ClipRange = ClipRange()

    @model_validator(mode="after")
    def bounds_enclose_one(self) -> Self:
        if not 0.0 < self.weight_low <= 1.0 <= self.weight_high:
            raise ValueError(
                f"the one-way bounds must enclose 1: 0 < weight_low <= 1 <= weight_high, "
                f"not weight_low = {self.weight_low}, weight_high = {self.weight_high}"
            )
        return self


class GrpoObjective(Strict):
    """Group-relative policy optimization with the clipped surrogate."""

    type: Literal["grpo"] = "grpo"
    clip: ClipRange = ClipRange(low=0.2, high=0.2)


class AdvantageConfig(Strict):
    baseline: Literal["mean", "minimum_variance"] = "minimum_variance"
    """minimum_variance: the off-policy optimal baseline, with the logit proxy for the gradient norms."""
    normalize: Literal["none", "sample_std", "population_std"] = "none"


class ImportanceConfig(Strict):
    """Sequence-level truncated importance weights current/behavior."""

    cap: float = Field(default=8.0, ge=1.0)


class EssConfig(Strict):
    """Learning rate x max(floor, sqrt(min(1, ess_ratio / full_ratio)))."""

    enabled: bool = True
    full_ratio: float = Field(default=1.0, gt=0.0, le=1.0)
    """The ESS ratio at which the step is taken whole."""
    floor: float = Field(default=0.1, ge=0.0, le=1.0)


class ReferenceConfig(Strict):
    """The ratchet: reference := current every so many steps."""

    every_steps: int = Field(default=50, ge=1)
    gated: bool = True
    """Only when the smoothed pass rate did not fall since the last time."""
    tolerance: float = Field(default=0.02, ge=0.0)
    """A fall of the pass rate up to this counts as none."""
    smoothing_steps: int = Field(default=10, ge=1)
    """The pass rate is a mean over so many steps."""


class CheckpointConfig(Strict):
    every_steps: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1)


class LearnerConfig(Strict):
    steps: int = Field(ge=1)
    groups_per_step: int = Field(ge=1)
    max_lag: int = Field(default=2, ge=0)
    """Steps that a group may be behind; 0 is synchronous."""
    age_rule: Literal["train", "drop", "mask"] = "drop"
    """What happens to tokens older than max_lag: trained on all the same, their group dropped, or left out of the loss."""
    optimizer: OptimizerConfig = OptimizerConfig()
    objective: Annotated[OwpoObjective | GrpoObjective, Field(discriminator="type")] = OwpoObjective()
    aggregation: Literal["sequence_mean", "token_mean"] = "sequence_mean"
    advantage: AdvantageConfig = AdvantageConfig()
    importance: ImportanceConfig = ImportanceConfig()
    ess: EssConfig = EssConfig()
    reference: ReferenceConfig = ReferenceConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    zero_stage: Literal[0, 1, 2, 3] = 1
    ranks: int = Field(default=1, ge=1)
    """Learner processes that `ratchet up` starts; on several hosts torchrun decides."""
    row_tokens: int = Field(default=4096, ge=2)
    """Token budget of one packed row."""
    rows_per_micro_batch: int = Field(default=1, ge=1)
    head_chunk_tokens: int = Field(default=1024, ge=1)
    """Response tokens whose logits are in memory at once."""
    gradient_checkpointing: bool = False
    truncated: Literal["train", "mask"] = "train"
    """Responses cut by max_tokens: trained on, or left out of the loss."""
    max_skipped_steps: int = Field(default=5, ge=1)
    """Consecutive non-finite steps after which the run stops."""
    cpu_threads: int = Field(default=1, ge=1)
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
