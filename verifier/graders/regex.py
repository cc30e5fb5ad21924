"""Grader `regex`: the reference is a regular expression, and the response, or what `extract` finds in it, matches it.

Patterns come from the dataset and are trusted to mean what they say; responses are not trusted. The syntax is that of
Python's `re`, including flags in the pattern: with `(?s)` a dot matches a new line.

Failure modes:
- A pattern such as `(a+)+$` backtracks without end on some responses. The loop runs in C, where nothing in this process can
  interrupt it: the pool ends the process at its deadline. Possessive quantifiers (`a++`) and atomic groups prevent it.
- A pattern that matches the empty string would find a match in every response; with match = "contains" it is a fault.
"""

import re
from collections import deque
from typing import Any, ClassVar, Literal

from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders.blank import is_blank

SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail


class Regex(Grader, frozen=True):
    version: ClassVar[str] = "1"

    match: Literal["whole", "contains"] = "whole"
    """whole: the reference matches all of the answer. contains: it matches some part of it."""
    extract: str | None = None
    """Regular expression with one group; its last match in the response is the answer. None: the whole response is."""
    strip: bool = True
    """Ignore white space around the answer."""
    case_sensitive: bool = True
    """Whether upper and lower case differ, in the reference and in `extract`."""

    def __post_init__(self) -> None:
        if self.extract is None:
            return
        groups = self._compiled(self.extract, "option extract").groups
        if groups != 1:
            raise ScoringFault(f"option extract = {self.extract!r} has {groups} groups; it needs exactly one")

    def check(self, reference: Any) -> None:
        self._pattern(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        pattern, answer = self._pattern(reference), response
        if self.extract is not None:
            last = deque(self._compiled(self.extract, "option extract").finditer(response), maxlen=1)
            if not last or last[0][1] is None:
                return Judgment(False, "extract finds no answer in the response")
            answer = last[0][1]
        if self.strip:
            answer = answer.strip()
        matched = pattern.fullmatch(answer) if self.match == "whole" else pattern.search(answer)
        return Judgment(True) if matched else Judgment(False, f"no match in {answer[:SHOWN_CHARACTERS]!r}")

    def _pattern(self, reference: Any) -> re.Pattern[str]:
        if not isinstance(reference, str) or is_blank(reference):
            raise ScoringFault(
                f"reference must be a regular expression, not {type(reference).__name__} {reference!r:.60}"
            )
        pattern = self._compiled(reference, "reference")
        if self.match == "contains" and pattern.search(""):
            raise ScoringFault(
                f"reference {reference!r:.60} matches the empty string, so every response would contain a match; "
                'anchor it, or set match = "whole"'
            )
        return pattern

    def _compiled(self, pattern: str, what: str) -> re.Pattern[str]:
        """The compiled pattern. `re` caches it, so the samples of a group share it."""
        try:
            return re.compile(pattern, 0 if self.case_sensitive else re.IGNORECASE)
        except (re.error, OverflowError, RecursionError) as fault:
            raise ScoringFault(f"{what} {pattern!r:.60} is not a regular expression: {fault}") from fault
