"""Decoupled PPO. Its functions: learner/objective/decoupled_ppo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from services.config.effect import SEVERAL_STEPS, OnlyWith
from services.config.objectives.base import DEVIATIONS, SYMMETRIC, ClipRange, DualClip, Numerator, ObjectiveSettings

LOG_LINEAR = OnlyWith(".proximal", "log_linear")


class DecoupledPpoObjective(ObjectiveSettings):
    """Decoupled PPO (arXiv:2110.00641, arXiv:2505.24298): a clip around the proximal policy, and a bound on how far that policy
    may be from the one that sampled."""

    published: ClassVar[Mapping[str, Any]] = {**DEVIATIONS, "aggregation": "token_mean"}
    numerator: ClassVar[Numerator] = "none"
    proportional: ClassVar[bool] = True
    type: Literal["decoupled_ppo"] = "decoupled_ppo"
    proximal: Literal["exact", "log_linear"] = "exact"
    """Where proximal log-probs come from. exact: scored with the weights that the batch began with, one more forward.
    log_linear: a point between the behavior policy and the current one by the token's lag, without a forward."""
    at_lag_zero: Annotated[Literal["current", "behavior"], LOG_LINEAR] = "current"
    """What log_linear takes for the proximal policy of a token without lag. current: the ratio is 1, so that such a token has no
    trust region, however many optimizer steps its batch gets. behavior: the clip is around the policy that sampled it."""
    mismatch_cap: float = Field(default=5.0, ge=1.0)
    """Bound on each token's mismatch ratio proximal/behavior."""
    above_cap: Literal["mask", "truncate"] = "mask"
    """What happens to a token beyond that bound: left out of the sum, or its mismatch ratio cut to it."""
    clip: Annotated[ClipRange, SEVERAL_STEPS, LOG_LINEAR] = SYMMETRIC
    """Range of the ratio current/proximal."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS, LOG_LINEAR] = None
    """Bound on the loss of a token with a negative advantage, in multiples of |A|; unset: none."""

    @property
    def needs_proximal(self) -> bool:
        return self.proximal == "exact"
