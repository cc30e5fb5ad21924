"""How far apart two lists of log-probs are, and whether that is too far. Pure.

Rounding in bfloat16 has a heavy tail: most tokens differ by hundredths of a nat, one in thousands by half a nat. Weights that
are wrong move most tokens. So the mean and a quantile are judged by narrow bounds, the largest difference by a wide one.
"""

import math
from collections.abc import Iterable, Sequence

from services.wire.weights import Gap

HIGH_RATIO = 0.9
"""The quantile that is judged."""
APART = Gap(math.inf, math.inf, math.inf)
"""The gap of lists that cannot be compared."""


def gap_between(expected: Sequence[float], got: Sequence[float]) -> Gap:
    """How far `got` is from `expected`. Lists without a number are equal."""
    if len(expected) != len(got):
        return APART
    differences = sorted(abs(e - g) for e, g in zip(expected, got, strict=True))
    if not differences:
        return Gap(0.0, 0.0, 0.0)
    if not all(map(math.isfinite, differences)):
        return APART
    high = differences[math.ceil(HIGH_RATIO * len(differences)) - 1]
    return Gap(math.fsum(differences) / len(differences), high, differences[-1])


def is_within(gap: Gap, bound: Gap) -> bool:
    """Whether none of the three is above its bound. A gap that is not a number is not within any."""
    return (
        gap.mean_nats <= bound.mean_nats and gap.high_nats <= bound.high_nats and gap.largest_nats <= bound.largest_nats
    )


def widest(gaps: Iterable[Gap]) -> Gap:
    """The largest of each of the three, over at least one gap."""
    means, highs, largest = zip(*((gap.mean_nats, gap.high_nats, gap.largest_nats) for gap in gaps), strict=True)
    return Gap(max(means), max(highs), max(largest))


def in_words(gap: Gap) -> str:
    """For a message."""
    return f"{gap.mean_nats:.2g} nats in the mean, {gap.high_nats:.2g} at nine in ten tokens, {gap.largest_nats:.2g} at most"
