"""[learner.optimizer]: AdamW, the limits on its gradients, and the learning rate over the run."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from services.config.base import Strict
from services.config.effect import OnlyWith


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
    final_fraction: Annotated[float, OnlyWith(".schedule", "linear")] = Field(default=0.0, ge=0.0, le=1.0)
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
