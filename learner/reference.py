"""The ratchet: when the reference policy becomes the current one. Facts go in, a verdict comes out; it owns no weights.

Every `every_steps` optimizer steps the reference is due; gated, it moves only if the smoothed pass rate did not fall by
more than `tolerance` since it last moved. A refusal holds until it is due again. The gate is ours, not the paper's.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from services.config.learner import ReferenceConfig

Verdict = Literal["swap", "not_due", "pass_rate_fell"]


@dataclass(frozen=True, slots=True)
class RatchetState:
    """All that the ratchet remembers; `to_dict` and `from_dict` carry it through a checkpoint."""

    recent: tuple[float, ...] = ()
    """Pass rates of the last smoothing_steps steps, oldest first."""
    pass_rate_at_swap: float | None = None
    """Smoothed pass rate when the reference last moved, at first that of the first smoothing_steps steps."""
    reference_version: int = 0
    """Policy version of the reference's weights."""
    swaps: int = 0
    refusals: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "recent": list(self.recent),
            "pass_rate_at_swap": self.pass_rate_at_swap,
            "reference_version": self.reference_version,
            "swaps": self.swaps,
            "refusals": self.refusals,
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "RatchetState":
        return cls(**{**saved, "recent": tuple(saved["recent"])})

    @property
    def smoothed_pass_rate(self) -> float | None:
        return math.fsum(self.recent) / len(self.recent) if self.recent else None


def observe(
    settings: ReferenceConfig, state: RatchetState, *, step: int, pass_rate: float, optimizer_steps: int = 1
) -> tuple[RatchetState, Verdict]:
    """After learner step number `step` (from 1), whose groups had this pass rate (nan: unknown, not remembered).

    optimizer_steps: in each learner step. The period counts those, and the reference moves at the first boundary after.
    On "swap" the caller makes reference := current; the state returned takes that as done. Skipped steps do not come here.
    """
    if math.isfinite(pass_rate):
        state = replace(state, recent=(*state.recent, pass_rate)[-settings.smoothing_steps :])
    if state.pass_rate_at_swap is None and len(state.recent) == settings.smoothing_steps:
        state = replace(state, pass_rate_at_swap=state.smoothed_pass_rate)
    if step * optimizer_steps // settings.every_steps == (step - 1) * optimizer_steps // settings.every_steps:
        return state, "not_due"
    now, before = state.smoothed_pass_rate, state.pass_rate_at_swap
    # 1e-12: a fall of exactly the tolerance counts as none, whatever the rounding of the mean.
    if settings.gated and before is not None and now is not None and now < before - settings.tolerance - 1e-12:
        return replace(state, refusals=state.refusals + 1), "pass_rate_fell"
    swapped = replace(
        state,
        pass_rate_at_swap=now if now is not None else before,
        reference_version=step,
        swaps=state.swaps + 1,
    )
    return swapped, "swap"
