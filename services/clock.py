"""Deadlines and the clock. Loops read the clock; pure code gets the time as an argument."""

import time
from dataclasses import dataclass

from services.errors import DeadlineExceeded

sleep = time.sleep


def now_s() -> float:
    """Monotonic seconds."""
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of one wait."""

    awaiting: str
    """What is awaited, in words that an operator knows; also the metric label."""
    at_s: float
    """Monotonic seconds."""

    @classmethod
    def after(cls, seconds: float, awaiting: str) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(awaiting, now_s() + seconds)

    def remaining_s(self, at_s: float | None = None) -> float:
        """Seconds left, now or at `at_s`. Raises DeadlineExceeded when none are left."""
        now = now_s() if at_s is None else at_s
        if now >= self.at_s:
            raise DeadlineExceeded(self.awaiting, late_s=now - self.at_s)
        return self.at_s - now
