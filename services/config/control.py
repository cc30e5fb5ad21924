"""[learner.ess] and [learner.lag_control]: what the effective sample size decides."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Strict
from services.config.effect import OnlyWith

ENABLED = OnlyWith(".enabled", True)


class EssConfig(Strict):
    """The learning rate follows the effective sample size: rate x max(floor, rule(min(1, ess_ratio / full_ratio)))."""

    enabled: bool = True
    """Whether the learning rate is scaled by the ESS ratio. Objectives other than OWPO turn it off unless told otherwise."""
    rule: Annotated[Literal["sqrt", "linear"], ENABLED] = "sqrt"
    """How the factor follows the ESS ratio: its square root, or the ratio itself."""
    full_ratio: Annotated[float, ENABLED, OnlyWith("learner.lag_control.enabled", True)] = Field(
        default=1.0, gt=0.0, le=1.0
    )
    """The ESS ratio at and above which a step is taken whole. Lower it where engine and learner differ numerically, so that
    even on-policy steps stay below 1; or measure it with calibrate_steps."""
    calibrate_steps: Annotated[int, ENABLED] = Field(default=0, ge=0)
    """If above 0, full_ratio is the median ESS ratio of the first calibrate_steps steps, which are synchronous and taken
    whole."""
    floor: Annotated[float, ENABLED] = Field(default=0.1, ge=0.0, le=1.0)
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
    target_ess_ratio: Annotated[float, ENABLED] = Field(default=0.6, gt=0.0, lt=1.0)
    """The ESS ratio, relative to ess.full_ratio, that the lag is steered to."""
    band: Annotated[float, ENABLED] = Field(default=0.1, ge=0.0, lt=0.5)
    """The lag stays as it is while the mean ESS ratio is within this distance of the target."""
    smoothing_steps: Annotated[int, ENABLED] = Field(default=5, ge=1)
    """Learner steps over which the ESS ratio is averaged before the lag may change."""
    least: Annotated[int, ENABLED] = Field(default=1, ge=0)
    """Learner steps ahead that groups may always be issued; 0 lets the loop go down to synchronous training."""
