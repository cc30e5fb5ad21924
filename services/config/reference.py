"""[learner.reference]: which weights the reference policy has, and where they are kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import Strict
from services.config.effect import OnlyWith


class ReferenceCopy(Strict):
    """How the reference's weights are kept between two forwards, which run in the model's dtype."""

    dtype: Literal["model", "bfloat16"] = "model"
    """Dtype that the reference is kept in. bfloat16 halves its memory when the model is in float32, and rounds it."""
    offload: Annotated[bool, OnlyWith("device", "cuda")] = False
    """Whether the reference is kept in host memory and on the device only during a forward. Saves the device's memory and
    costs a copy per step."""


class ReferenceConfig(ReferenceCopy):
    """The ratchet: reference := current every few optimizer steps."""

    type: Literal["ratchet"] = "ratchet"
    every_steps: int = Field(default=50, ge=1)
    """Optimizer steps between swaps. A shorter period lets the policy move away faster."""
    gated: bool = True
    """Whether a swap happens only if the smoothed pass rate did not fall since the last one."""
    tolerance: Annotated[float, OnlyWith(".gated", True)] = Field(default=0.02, ge=0.0)
    """A fall of the pass rate up to this, as a fraction, counts as none. Raise it when the pass rate is noisy."""
    smoothing_steps: Annotated[int, OnlyWith(".gated", True), OnlyWith(".roll_back")] = Field(default=10, ge=1)
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
