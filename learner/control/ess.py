"""What the effective sample size decides from step to step: the ratio at which a step is taken whole, and the lag window.

Engines differ in their numerics, and long sequences multiply the difference: even on policy the ESS ratio is below 1, and
without calibration the learning rate would be cut for it. Calibration measures what numerics alone leave of it: the first
`learner.ess.calibrate_steps` steps are issued synchronously and taken whole, and the median of their ESS ratios is the full
ratio from then on. Calibration is ours, not a paper's.
"""

import logging
import math
import statistics
from typing import Any

from learner.control import lag_window
from learner.control.lag_window import LagWindow
from learner.step.report import StepReport
from services.config.learner import LearnerConfig

log = logging.getLogger("ratchet.learner")

TAKE_EVERY_STEP_WHOLE = 0.0
"""The full ratio while it is being measured."""


class EssControl:
    """Lives on rank 0; `to_dict` and `from_dict` carry it through a checkpoint."""

    def __init__(
        self, settings: LearnerConfig, window: LagWindow | None = None, on_policy: tuple[float, ...] = ()
    ) -> None:
        """on_policy: the ESS ratios that calibration has measured so far."""
        self._settings = settings
        self._window = window or LagWindow(settings.max_lag)
        self._on_policy = on_policy

    def to_dict(self) -> dict[str, Any]:
        """JSON values for the checkpoint."""
        return {"lag_window": self._window.to_dict(), "on_policy": list(self._on_policy)}

    @classmethod
    def from_dict(cls, settings: LearnerConfig, saved: dict[str, Any]) -> "EssControl":
        """Continue from a checkpoint, under today's settings: they may have changed since it was written."""
        window = lag_window.within(settings.lag_control, settings.max_lag, LagWindow.from_dict(saved["lag_window"]))
        return cls(settings, window, tuple(saved["on_policy"]))

    @property
    def steps_ahead(self) -> int:
        """How many steps ahead groups may be issued; 0 while calibrating."""
        return 0 if self._is_calibrating else self._window.steps

    @property
    def full_ratio(self) -> float:
        """The ESS ratio at which the next step is taken whole; `learning_rate_factor` divides by it."""
        ess = self._settings.ess
        if ess.calibrate_steps == 0 or not ess.enabled:
            return ess.full_ratio
        return TAKE_EVERY_STEP_WHOLE if self._is_calibrating else statistics.median(self._on_policy)

    def observe(self, report: StepReport) -> None:
        """Take in one step; called after each."""
        if report.skipped in ("empty", "non_finite_reference"):  # no sequence was looked at: there is no ESS
            return
        if self._is_calibrating:
            # A negative lag is that of a version which a restart took back: other weights, not today's.
            on_policy = report.max_lag_steps == 0 and not report.mean_lag_steps < 0
            if on_policy and math.isfinite(report.ess_ratio):
                self._on_policy = (*self._on_policy, report.ess_ratio)
            return
        before = self._window.steps
        # Relative to what is left of it on policy: numerics alone are no reason to narrow the window.
        ess_ratio = report.ess_ratio / self.full_ratio
        self._window = lag_window.observe(self._settings.lag_control, self._settings.max_lag, self._window, ess_ratio)
        if self._window.steps != before:
            log.info("groups are issued up to %d steps ahead; it was %d", self._window.steps, before)

    @property
    def _is_calibrating(self) -> bool:
        ess = self._settings.ess
        return ess.enabled and len(self._on_policy) < ess.calibrate_steps
