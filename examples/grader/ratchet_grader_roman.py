"""Grader `roman`: the last Roman numeral of the response stands for the number in the reference.

Failure modes: a lone capital that is a numeral by accident ("I think so") counts, so a response that ends in prose is
misread; numbers above 3999 have no numeral. Incorrect: no numeral, and one that is not well formed, such as IIII.
"""

import re
from typing import Any, ClassVar

from verifier.grader import Grader, Judgment, ScoringFault

LARGEST = 3999
DIGITS = {"M": 1000, "D": 500, "C": 100, "L": 50, "X": 10, "V": 5, "I": 1}
WELL_FORMED = re.compile(r"M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
NUMERAL = re.compile(r"\b[MDCLXVI]+\b")
SHOWN_CHARACTERS = 40  # of a wrong answer, in the detail


class Roman(Grader, frozen=True):
    version: ClassVar[str] = "1"

    lower_case: bool = False
    """Whether xiv counts as XIV."""
    well_formed: bool = True
    """Whether IIII and IC are refused."""

    def check(self, reference: Any) -> None:
        if isinstance(reference, bool) or not isinstance(reference, int) or not 1 <= reference <= LARGEST:
            raise ScoringFault(f"reference must be a whole number from 1 to {LARGEST}")

    def score(self, response: str, reference: Any) -> Judgment:
        self.check(reference)
        numerals = NUMERAL.findall(response.upper() if self.lower_case else response)
        if not numerals:
            return Judgment(False, "no Roman numeral in the response")
        answer = numerals[-1]
        if self.well_formed and not WELL_FORMED.fullmatch(answer):
            return Judgment(False, f"{answer[:SHOWN_CHARACTERS]} is not well formed")
        if value(answer) == reference:
            return Judgment(True)
        return Judgment(False, f"answer {answer[:SHOWN_CHARACTERS]}")


def value(numeral: str) -> int:
    """The number that a numeral stands for: a digit before a larger one is subtracted."""
    total = largest = 0
    for digit in reversed(numeral):
        worth = DIGITS[digit]
        total += worth if worth >= largest else -worth
        largest = max(largest, worth)
    return total
