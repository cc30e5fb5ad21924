"""Grader `math`: the last mathematical answer in the response is equal to the reference, by math-verify.

Its own time limits are off: they rest on SIGALRM, which a loop in C never sees, and the pool kills what is too slow.
Importing this takes a third of a second and 60 MB, so that only grader processes do.
"""

import logging
import re
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version as version_of_package
from typing import Any, ClassVar

import msgspec
from math_verify import parse, verify  # type: ignore[import-untyped]

from verifier.scorer import Judgement, ScoringFault

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns about the limits that are off, once a process

SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail
DELIMITED = re.compile(r"\$|\\boxed|\\\(|\\\[")
SCIENTIFIC = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d{1,3}\s*")


class MathAnswer(msgspec.Struct, frozen=True):
    version: ClassVar[str] = f"1 math-verify {version_of_package('math-verify')}"
    cached: ClassVar[bool] = True

    strict: bool = True
    """Variables must have the same names, and a set is no tuple."""
    float_rounding: int = 6
    """Decimal places to which numbers are compared."""

    def check(self, reference: Any) -> None:
        gold = _parse_reference(_reference_text(reference))
        if not self._equal(gold, gold):
            raise ScoringFault(f"reference {reference!r} is not equal to itself")

    def score(self, response: str, reference: Any) -> Judgement:
        gold = _parse_reference(_reference_text(reference))
        try:
            answer = parse(response, parsing_timeout=None, raise_on_error=True)
        except MemoryError:
            raise
        except Exception as fault:
            return Judgement(False, f"the response cannot be parsed: {type(fault).__name__}")
        if not answer:
            return Judgement(False, "no answer in the response")
        try:
            equal = self._equal(gold, answer)
        except MemoryError:
            raise
        except Exception as fault:
            # Whose fault it is shows when the reference is compared with itself.
            if not self._equal(gold, gold):
                raise ScoringFault(f"reference {reference!r} is not equal to itself") from fault
            return Judgement(False, f"the answer cannot be compared: {type(fault).__name__}")
        return Judgement(True) if equal else Judgement(False, f"answer {str(answer[-1])[:SHOWN_CHARACTERS]!r}")

    def _equal(self, gold: list[Any], answer: list[Any]) -> bool:
        # The order matters: verify is not symmetric.
        return bool(
            verify(
                gold,
                answer,
                float_rounding=self.float_rounding,
                strict=self.strict,
                timeout_seconds=None,
                raise_on_error=True,
            )
        )


def _reference_text(reference: Any) -> str:
    """A float in scientific notation is written out: math-verify reads 1e5 as 1 times Euler's number times 5."""
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        raise ScoringFault(f"reference must be a string or a number, not {type(reference).__name__}")
    text = str(reference)
    return f"{Decimal(text.strip()):f}" if SCIENTIFIC.fullmatch(text) else text


@lru_cache(maxsize=1024)  # a group's samples share their reference, and come one after the other
def _parse_reference(text: str) -> list[Any]:
    """A bare number or LaTeX counts as mathematics as a whole. Raises ScoringFault when nothing in it can be parsed."""
    latex = text if DELIMITED.search(text) else f"${text}$"
    try:
        gold = parse(latex, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)
    except MemoryError:
        raise
    except Exception as fault:
        raise ScoringFault(f"reference {text!r} cannot be parsed: {type(fault).__name__}: {fault}") from fault
    if not gold:
        raise ScoringFault(f"reference {text!r} holds nothing that math-verify can parse")
    parsed: list[Any] = gold
    return parsed
