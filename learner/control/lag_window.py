"""How many steps ahead groups may be issued, decided by what staleness does to the effective sample size. Pure.

The window starts at learner.max_lag and never exceeds it. An ESS ratio here is a step's ratio divided by the full ratio of
[learner.ess]. When its mean over `smoothing_steps` steps is below the target by more than the band, the window shrinks by a
quarter; when it is above by more than the band, the window grows by a quarter. In between nothing moves. After a move, the
groups issued under the earlier window are still to be consumed, as many steps' worth as that window had; they say nothing
about the new window, so their steps are not looked at. The rule is ours, not a paper's.
"""

import math
from dataclasses import dataclass
from typing import Any

from services.config.control import LagControl


@dataclass(frozen=True, slots=True)
class LagWindow:
    """Everything the controller remembers."""

    steps: int
    """Groups are issued up to this many steps ahead."""
    recent: tuple[float, ...] = ()
    """ESS ratios since the last move or decision, oldest first."""
    settling: int = 0
    """Steps to skip before ESS ratios are looked at again."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values for the checkpoint."""
        return {"steps": self.steps, "recent": list(self.recent), "settling": self.settling}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "LagWindow":
        return cls(steps=saved["steps"], recent=tuple(saved["recent"]), settling=saved["settling"])


def within(settings: LagControl, max_lag: int, window: LagWindow) -> LagWindow:
    """Fit a saved window to settings that may have changed since. Without `enabled` the window is max_lag."""
    steps = min(max(window.steps, settings.least), max_lag) if settings.enabled else max_lag
    return window if steps == window.steps else LagWindow(steps, settling=window.steps + 1)


def observe(settings: LagControl, max_lag: int, window: LagWindow, ess_ratio: float) -> LagWindow:
    """The window after one more step. An ess_ratio that is not finite counts as 0, the worst. Without `enabled` the window
    stays as it is."""
    if not settings.enabled:
        return window
    if window.settling > 0:
        return LagWindow(window.steps, settling=window.settling - 1)
    recent = (*window.recent, ess_ratio if math.isfinite(ess_ratio) else 0.0)
    if len(recent) < settings.smoothing_steps:
        return LagWindow(window.steps, recent)
    mean, part = math.fsum(recent) / len(recent), max(1, window.steps // 4)
    steps = window.steps
    # 1e-12: rounding of the mean must not move the window at the very edge of the band.
    if mean < settings.target_ess_ratio - settings.band - 1e-12:
        steps = max(settings.least, window.steps - part)
    elif mean > settings.target_ess_ratio + settings.band + 1e-12:
        steps = min(max_lag, window.steps + part)
    return LagWindow(steps, settling=window.steps + 1 if steps != window.steps else 0)
