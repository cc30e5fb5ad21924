"""Ratios of two things that were measured in turn, with an interval: what a busy machine lets one say."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Median over rounds and its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}-{self.high:.3f})"


def ratio(values: Sequence[float]) -> Ratio:
    """The k-th lowest and the k-th highest value enclose the median with at least 95 %, or with what few values allow."""
    ordered, count = sorted(values), len(values)
    outside = [2 * math.fsum(math.comb(count, j) for j in range(k)) / 2**count for k in range(1, count // 2 + 1)]
    k = max([k for k, p in enumerate(outside, 1) if p <= 0.05], default=1)
    return Ratio(statistics.median(ordered), ordered[k - 1], ordered[-k])
