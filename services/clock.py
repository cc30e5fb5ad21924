"""Deadlines. Only loops ask the clock; everything else is told the time."""

import time
from dataclasses import dataclass

from services.errors import DeadlineExceeded

now_s = time.monotonic
sleep = time.sleep


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of one wait. `awaiting` is who, in words an operator knows: also the metric label."""

    awaiting: str
    at_s: float  # monotonic seconds

    @classmethod
    def after(cls, seconds: float, awaiting: str) -> "Deadline":
        return cls(awaiting, now_s() + seconds)

    def remaining_s(self, at_s: float | None = None) -> float:
        """Seconds left; raises DeadlineExceeded when none are."""
        now = now_s() if at_s is None else at_s
        if now >= self.at_s:
            raise DeadlineExceeded(self.awaiting, late_s=now - self.at_s)
        return self.at_s - now
