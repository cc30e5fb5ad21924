"""How many steps behind groups may be issued, from what staleness does to the effective sample size. Facts in, a window out.

The window is at most learner.max_lag, where it begins. An ESS ratio is that of a step over the full ratio of [learner.ess].
When their mean over `smoothing_steps` steps is below the target by more than the band, a quarter of the window goes; when
it is as far above, a quarter comes back. In between nothing moves. After a move, groups issued under the window before are
still to be consumed, as many steps' worth as that window had: they say nothing about the new one and are not looked at.
"""

import math
from dataclasses import dataclass
from typing import Any

from services.config.learner import LagControl


@dataclass(frozen=True, slots=True)
class LagWindow:
    """All that the controller remembers."""

    steps: int
    """Groups are issued up to this many steps ahead."""
    recent: tuple[float, ...] = ()
    """ESS ratios since the last move or look, oldest first."""
    settling: int = 0
    """Steps still to pass before ESS ratios are looked at."""

    def to_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "recent": list(self.recent), "settling": self.settling}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "LagWindow":
        return cls(steps=saved["steps"], recent=tuple(saved["recent"]), settling=saved["settling"])


def within(settings: LagControl, max_lag: int, window: LagWindow) -> LagWindow:
    """The window under settings that may be others than it came about under: without `enabled` it is max_lag."""
    steps = min(max(window.steps, settings.least), max_lag) if settings.enabled else max_lag
    return window if steps == window.steps else LagWindow(steps, settling=window.steps + 1)


def observe(settings: LagControl, max_lag: int, window: LagWindow, ess_ratio: float) -> LagWindow:
    """After each step; an ess_ratio that is not finite counts as the worst, 0. Without `enabled` the window stays."""
    if not settings.enabled:
        return window
    if window.settling > 0:
        return LagWindow(window.steps, settling=window.settling - 1)
    recent = (*window.recent, ess_ratio if math.isfinite(ess_ratio) else 0.0)
    if len(recent) < settings.smoothing_steps:
        return LagWindow(window.steps, recent)
    mean, part = math.fsum(recent) / len(recent), max(1, window.steps // 4)
    steps = window.steps
    # 1e-12: at the edge of the band nothing moves, whatever the rounding of the mean.
    if mean < settings.target_ess_ratio - settings.band - 1e-12:
        steps = max(settings.least, window.steps - part)
    elif mean > settings.target_ess_ratio + settings.band + 1e-12:
        steps = min(max_lag, window.steps + part)
    return LagWindow(steps, settling=window.steps + 1 if steps != window.steps else 0)
