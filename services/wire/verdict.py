"""One verdict, the same record from the grader process to the learner. Imports nothing heavy: grader processes use it."""

from typing import Literal

import msgspec

Verdict = Literal["correct", "incorrect", "error", "timeout"]


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict. `reward` is a number only when the verdict is `correct` or `incorrect`."""

    verdict: Verdict
    reward: float | None
    detail: str
    elapsed_s: float
    """Seconds that grading took; 0 for a verdict that needed no grader. A learner step reports the mean."""
