"""PPO-EWMA. Its functions: learner/objective/ppo_ewma.py."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from services.config.objectives.base import DEVIATIONS, SYMMETRIC, ClipRange, Numerator, ObjectiveSettings


class PpoEwmaObjective(ObjectiveSettings):
    """PPO-EWMA (arXiv:2110.00641): decoupled PPO whose proximal policy is a moving average of the weights."""

    published: ClassVar[Mapping[str, Any]] = {
        **DEVIATIONS,
        "aggregation": "token_mean",
        "reference": {"type": "ema", "decay": 0.889, "debiased": True},  # center of mass: 8 optimizer steps
    }
    numerator: ClassVar[Numerator] = "none"
    references: ClassVar[tuple[str, ...]] = ("ema",)
    proportional: ClassVar[bool] = True
    type: Literal["ppo_ewma"] = "ppo_ewma"
    cap: float = Field(default=100.0, ge=1.0)
    """Bound on each token's ratios current/behavior and average/behavior. Lower it, to 10 say, when stale tokens make gradients
    spiky."""
    clip: ClipRange = SYMMETRIC
    """Range of the ratio current/average."""
