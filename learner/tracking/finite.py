"""What trackers other than TensorBoard take."""

import math
from collections.abc import Mapping


def finite_only(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures without those that are nan or infinite."""
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}
