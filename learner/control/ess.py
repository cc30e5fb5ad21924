"""What the effective sample size decides from step to step: the ratio at which steps are taken whole, and the lag window."""

import logging
from typing import Any

from learner.control import ess_calibration, lag_window
from learner.control.lag_window import LagWindow
from learner.step.report import StepReport
from services.config.learner import LearnerConfig

log = logging.getLogger("ratchet.learner")


class EssControl:
    """On rank 0; `to_dict` and `from_dict` carry it through a checkpoint."""

    def __init__(
        self, settings: LearnerConfig, window: LagWindow | None = None, on_policy: tuple[float, ...] = ()
    ) -> None:
        self._settings, self._window = settings, window or LagWindow(settings.max_lag)
        self._on_policy = on_policy
        """ESS ratios that ess_calibration has seen."""

    def to_dict(self) -> dict[str, Any]:
        return {"lag_window": self._window.to_dict(), "on_policy": list(self._on_policy)}

    @classmethod
    def from_dict(cls, settings: LearnerConfig, saved: dict[str, Any]) -> "EssControl":
        """Goes on where it was, under the settings of today: they may have changed since."""
        window = lag_window.within(settings.lag_control, settings.max_lag, LagWindow.from_dict(saved["lag_window"]))
        return cls(settings, window, tuple(saved["on_policy"]))

    @property
    def steps_ahead(self) -> int:
        """That groups may be issued now: none while the on-policy ESS is measured."""
        return 0 if ess_calibration.is_calibrating(self._settings.ess, self._on_policy) else self._window.steps

    @property
    def full_ratio(self) -> float:
        """Of the next step."""
        return ess_calibration.full_ratio(self._settings.ess, self._on_policy)

    def observe(self, report: StepReport) -> None:
        """After every step."""
        if report.skipped in ("empty", "non_finite_reference"):  # no sequence, or none that was looked at: no ESS
            return
        if ess_calibration.is_calibrating(self._settings.ess, self._on_policy):
            self._on_policy = ess_calibration.observe(
                self._settings.ess, self._on_policy, ess_ratio=report.ess_ratio, max_lag_steps=report.max_lag_steps
            )
            return
        before = self._window.steps
        # Against what is left of it on policy: numerics alone are no reason to narrow the window.
        ess_ratio = report.ess_ratio / self.full_ratio
        self._window = lag_window.observe(self._settings.lag_control, self._settings.max_lag, self._window, ess_ratio)
        if self._window.steps != before:
            log.info("groups are issued up to %d steps ahead, %d before", self._window.steps, before)
