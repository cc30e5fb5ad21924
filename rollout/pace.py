"""How many groups to have waiting in the engine beyond those that fit.

A group that ends leaves room that is filled one engine step later at the earliest, unless another group waits in the engine
itself. So as many wait there as usually end within the time in which new ones are claimed. They wait for no longer than that, so
other replicas lose next to nothing.
"""

import math

AHEAD_S = 0.05
"""Time to fill room: the engine step in progress, a wake-up of the loop and a claim."""
MEMORY_S = 1.0
"""Over how long the pace is measured; what was before counts for a third."""


class Pace:
    """Groups a second that the engine ends, of late."""

    def __init__(self) -> None:
        self._per_s = 0.0
        self._at_s = -math.inf  # monotonic seconds of the last count

    def count(self, groups: int, now_s: float) -> None:
        """These have ended."""
        self._per_s = self.per_s(now_s) + groups / MEMORY_S
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        """An average whose older part fades."""
        return self._per_s * math.exp(-max(0.0, now_s - self._at_s) / MEMORY_S)

    def groups_ahead(self, now_s: float) -> int:
        """How many to have waiting in the engine: one at least."""
        return max(1, math.ceil(self.per_s(now_s) * AHEAD_S))
