"""Grader `exact`: the response, or what a pattern finds in it, is the reference, letter for letter.

Failure modes: a number in the reference is compared as it is written, so that 1.0 is not "1"; letters that only look the same
(composed and decomposed accents) differ; a pattern that backtracks without end on some response holds its grader process
until its deadline, when the pool ends it.
"""

import re
from collections import deque
from typing import Any, ClassVar

from verifier.grader import Grader, Judgment, ScoringFault

SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail


class ExactMatch(Grader, frozen=True):
    version: ClassVar[str] = "2"

    strip: bool = True
    """Ignore white space around both sides."""
    case_sensitive: bool = True
    """Whether upper and lower case differ."""
    pattern: str | None = None
    """Regular expression with one group; its last match in the response is the answer."""

    def __post_init__(self) -> None:
        if self.pattern is None:
            return
        try:
            groups = re.compile(self.pattern).groups
        except (re.error, OverflowError, RecursionError) as fault:
            raise ScoringFault(f"option pattern = {self.pattern!r} is not a regular expression: {fault}") from fault
        if groups != 1:
            raise ScoringFault(f"option pattern = {self.pattern!r} has {groups} groups; it needs exactly one")

    def check(self, reference: Any) -> None:
        _text(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        expected, answer = _text(reference), response
        if self.pattern is not None:
            last = deque(re.finditer(self.pattern, response), maxlen=1)
            if not last or last[0][1] is None:
                return Judgment(False, "the pattern finds no answer in the response")
            answer = last[0][1]
        if self._canonical(answer) == self._canonical(expected):
            return Judgment(True)
        return Judgment(False, f"answer {answer[:SHOWN_CHARACTERS]!r}")

    def _canonical(self, text: str) -> str:
        if self.strip:
            text = text.strip()
        return text if self.case_sensitive else text.casefold()


def _text(reference: Any) -> str:
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        raise ScoringFault(f"reference must be a string or a number, not {type(reference).__name__}")
    if not str(reference).strip():
        raise ScoringFault("reference is empty, so every empty answer would be right")
    return str(reference)
