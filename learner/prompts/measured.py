"""What a run has measured of the problems of one source: how often each was issued, and how often it was solved."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

SMOOTHING = 0.5
"""Weight of the newest group in a problem's pass rate: the policy moves, so old groups fade quickly."""
COLUMNS: Mapping[str, tuple[str, float]] = {
    "rate": ("float64", np.nan),
    "last_rate": ("float64", np.nan),
    "streak": ("int64", 0),
    "reuses": ("int64", 0),
    "issued_step": ("int64", -1),
    "issued_draw": ("int64", -1),
    "measured_step": ("int64", -1),
}
"""Name -> dtype and the value of a problem that was never issued."""


class Measured:
    """One row for each of R problems. All arrays are [R]."""

    def __init__(self, problems: int) -> None:
        """problems: R, at least 1. Raises ValueError for fewer."""
        if problems < 1:
            raise ValueError(f"a source needs at least one problem, not {problems}")
        made = {name: np.full(problems, value, dtype=dtype) for name, (dtype, value) in COLUMNS.items()}
        self.draws = 0
        """Prompts issued from this source so far."""
        self.rate: np.ndarray[Any, Any] = made["rate"]
        """Pass rate, 0..1, averaged exponentially over the groups of the problem; nan before the first."""
        self.last_rate: np.ndarray[Any, Any] = made["last_rate"]
        """Pass rate of the newest group; nan before the first."""
        self.streak: np.ndarray[Any, Any] = made["streak"]
        """Groups in a row that were all right, or, negative, all wrong; 0 after a mixed one."""
        self.reuses: np.ndarray[Any, Any] = made["reuses"]
        """Replays since the problem's turn last came in the epoch."""
        self.issued_step: np.ndarray[Any, Any] = made["issued_step"]
        """Learner step at which the problem was last issued; -1 before."""
        self.issued_draw: np.ndarray[Any, Any] = made["issued_draw"]
        """Number of the last prompt of the problem among those of its source; -1 before."""
        self.measured_step: np.ndarray[Any, Any] = made["measured_step"]
        """Learner step at which its newest group was settled; -1 before."""

    def __len__(self) -> int:
        return len(self.rate)

    def note(self, problem: int, step: int) -> None:
        """The problem was issued. step: the policy version."""
        self.issued_step[problem] = step
        self.issued_draw[problem] = self.draws
        self.draws += 1

    def observe(self, problem: int, pass_rate: float, step: int) -> None:
        """A group of the problem was settled with this fraction of correct responses, 0..1. step: the policy version."""
        before = self.rate[problem]
        self.rate[problem] = pass_rate if np.isnan(before) else before + SMOOTHING * (pass_rate - before)
        self.last_rate[problem] = pass_rate
        self.measured_step[problem] = step
        streak = int(self.streak[problem])
        if pass_rate >= 1.0:
            self.streak[problem] = max(0, streak) + 1
        elif pass_rate <= 0.0:
            self.streak[problem] = min(0, streak) - 1
        else:
            self.streak[problem] = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values, of the problems that were issued or measured."""
        touched = np.flatnonzero((self.issued_draw >= 0) | (self.measured_step >= 0))
        columns = {name: [_plain(value) for value in getattr(self, name)[touched]] for name in COLUMNS}
        return {"draws": self.draws, "problems": touched.tolist(), **columns}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over what `to_dict` gave. Problems that are not there any more are left out."""
        self.draws = int(saved["draws"])
        if "problems" not in saved:  # the settings of then measured nothing
            return
        kept = [place for place, problem in enumerate(saved["problems"]) if problem < len(self)]
        problems = [saved["problems"][place] for place in kept]
        for name in COLUMNS:
            values = [saved[name][place] for place in kept]
            getattr(self, name)[problems] = [np.nan if value is None else value for value in values]


def _plain(value: Any) -> float | int | None:
    """The value for JSON, which has no nan."""
    plain: float | int = value.item()
    return None if math.isnan(plain) else plain
