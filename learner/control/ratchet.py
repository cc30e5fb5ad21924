"""The ratchet: when the reference policy moves to the current policy, or back to the one before. Facts go in, a verdict
comes out; it owns no weights.

Every `every_steps` optimizer steps the reference is due to move (OWPO, arXiv:2605.22156; our reading). With the gate it moves
only if the smoothed pass rate has not fallen by more than `tolerance` since it last moved; a refusal holds until it is due
again. With `roll_back`, a swap after which the pass rate falls by more than `roll_back` is undone, once, and the gate then
compares with the pass rate from before that swap. Gate and roll-back are ours, not the paper's.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from services.config.reference import ReferenceConfig

Verdict = Literal["swap", "not_due", "pass_rate_fell", "roll_back"]


@dataclass(frozen=True, slots=True)
class EarlierReference:
    """The reference that a roll-back returns to."""

    reference_version: int
    pass_rate_at_swap: float | None


@dataclass(frozen=True, slots=True)
class RatchetState:
    """Everything the ratchet remembers; `to_dict` and `from_dict` carry it through a checkpoint."""

    optimizer_steps: int = 0
    """Number of optimizer steps applied so far."""
    recent: tuple[float, ...] = ()
    """Pass rates of the last smoothing_steps steps, oldest first."""
    pass_rate_at_swap: float | None = None
    """Smoothed pass rate when the reference last moved; before that, the mean of the first smoothing_steps steps."""
    reference_version: int = 0
    """Policy version of the reference's weights."""
    swaps: int = 0
    refusals: int = 0
    roll_backs: int = 0
    observed_since_swap: int = 0
    """Number of pass rates observed since the last swap."""
    earlier: EarlierReference | None = None
    """The reference before the last swap, while that swap may still be undone."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values for the checkpoint."""
        return asdict(self) | {"recent": list(self.recent)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "RatchetState":
        """Continue from a checkpoint."""
        earlier = saved.get("earlier")
        return cls(
            optimizer_steps=saved.get("optimizer_steps", 0),
            recent=tuple(saved["recent"]),
            pass_rate_at_swap=saved["pass_rate_at_swap"],
            reference_version=saved["reference_version"],
            swaps=saved["swaps"],
            refusals=saved["refusals"],
            # Older checkpoints lack these and optimizer_steps; the next swap then comes one period from here.
            roll_backs=saved.get("roll_backs", 0),
            observed_since_swap=saved.get("observed_since_swap", 0),
            earlier=earlier and EarlierReference(earlier["reference_version"], earlier["pass_rate_at_swap"]),
        )

    @property
    def smoothed_pass_rate(self) -> float | None:
        """Mean of `recent`; None before the first pass rate."""
        return math.fsum(self.recent) / len(self.recent) if self.recent else None

    def fell_by_more_than(self, fall: float) -> bool:
        """Whether the smoothed pass rate fell by more than this since the reference last moved; False while either is unknown."""
        now, before = self.smoothed_pass_rate, self.pass_rate_at_swap
        # 1e-12: rounding of the mean must not turn a fall of exactly this much into more.
        return now is not None and before is not None and now < before - fall - 1e-12


def observe(
    settings: ReferenceConfig, state: RatchetState, *, step: int, pass_rate: float, optimizer_steps: int = 1
) -> tuple[RatchetState, Verdict]:
    """The verdict after one learner step, and the state that follows from it. Not called for skipped steps.

    step: number of the learner step, from 1. pass_rate: of its groups; nan means unknown and is not remembered.
    optimizer_steps: how many it applied; the period counts these, and the reference moves at the first step boundary after.
    On "swap" the caller sets reference := current; on "roll_back" it sets reference := the one before the last swap. The
    state returned assumes that this has been done.
    """
    before, applied = state.optimizer_steps, state.optimizer_steps + optimizer_steps
    state = replace(state, optimizer_steps=applied)
    if math.isfinite(pass_rate):
        recent = (*state.recent, pass_rate)[-settings.smoothing_steps :]
        state = replace(state, recent=recent, observed_since_swap=state.observed_since_swap + 1)
    if state.pass_rate_at_swap is None and len(state.recent) == settings.smoothing_steps:
        state = replace(state, pass_rate_at_swap=state.smoothed_pass_rate)
    if settings.roll_back is None:
        state = replace(state, earlier=None)
    elif (
        state.earlier is not None
        and state.observed_since_swap >= settings.smoothing_steps  # all of `recent`
        and state.fell_by_more_than(settings.roll_back)
    ):
        return _rolled_back(state, state.earlier), "roll_back"
    if applied // settings.every_steps == before // settings.every_steps:
        return state, "not_due"
    if settings.gated and state.fell_by_more_than(settings.tolerance):
        return replace(state, refusals=state.refusals + 1), "pass_rate_fell"
    return _swapped(state, step, keeps_earlier=settings.roll_back is not None), "swap"


def _swapped(state: RatchetState, version: int, *, keeps_earlier: bool) -> RatchetState:
    before, now = state.pass_rate_at_swap, state.smoothed_pass_rate
    return replace(
        state,
        pass_rate_at_swap=now if now is not None else before,
        reference_version=version,
        swaps=state.swaps + 1,
        observed_since_swap=0,
        earlier=EarlierReference(state.reference_version, before) if keeps_earlier else None,
    )


def _rolled_back(state: RatchetState, to: EarlierReference) -> RatchetState:
    return replace(
        state,
        pass_rate_at_swap=to.pass_rate_at_swap,
        reference_version=to.reference_version,
        roll_backs=state.roll_backs + 1,
        earlier=None,
    )
