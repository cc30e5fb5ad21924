"""The ESS ratio at which a step is taken whole, measured: what numerics alone leave of it while the data is on policy.

Engines differ, and long sequences multiply the difference: without calibration the learning rate is cut for it at no lag.
The first learner.ess.calibrate_steps steps are issued synchronously; the median of their ESS ratios is the measure.
"""

import math
import statistics
from collections.abc import Sequence

from services.config.learner import EssConfig

NOT_YET = 0.0
"""As a full ratio: every step is taken whole."""


def observe(settings: EssConfig, ratios: Sequence[float], *, ess_ratio: float, max_lag_steps: int) -> tuple[float, ...]:
    """The ratios seen so far, with that of one more step if it was on policy and a number."""
    known = tuple(ratios)
    if len(known) >= settings.calibrate_steps or max_lag_steps > 0 or not math.isfinite(ess_ratio):
        return known
    return (*known, ess_ratio)


def is_calibrating(settings: EssConfig, ratios: Sequence[float]) -> bool:
    return settings.enabled and len(ratios) < settings.calibrate_steps


def full_ratio(settings: EssConfig, ratios: Sequence[float]) -> float:
    """What `learning_rate_factor` divides by."""
    if settings.calibrate_steps == 0 or not settings.enabled:
        return settings.full_ratio
    return NOT_YET if is_calibrating(settings, ratios) else statistics.median(ratios)
