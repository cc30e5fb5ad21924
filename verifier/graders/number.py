"""Grader `number`: the number that the response states last is the reference number, exactly unless tolerance says otherwise.

The number is, in this order: the last match of `pattern`, if it is set; the last complete \\boxed{}; what follows the last
####; what follows the last "the answer is", in one of the languages of verifier/graders/stated_value.py; the last number of the
response. A box decides even when it holds no number.

The grader reads thousands separators, a currency sign, a percent sign, a unit after the number, fractions, mixed numbers,
scientific notation and the Unicode minus. It does not know algebra: \\sqrt{4} and 1 + 1 are not numbers (use `math`), and
neither are 12x, 12! and "at least 12". A box, a match or a statement that offers two numbers, or denies one, is incorrect.
Every step is linear in the length of the response.
"""

import re
from collections import deque
from fractions import Fraction
from typing import Any, ClassVar, Literal

from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders.math.extract import boxed
from verifier.graders.stated_value import (
    NOISE,
    has_rival,
    is_alternative,
    is_denied,
    is_ruled_out,
    sentence_of,
    statements,
)

SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail
LARGEST_EXPONENT = 400
LONGEST_NUMBER = 1_000  # characters

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(?P<sign>[-+](?:\s?(?=[$€£¥₹₩\d.]))|)[$€£¥₹₩]?(?P<inner>-?)"
    rf"(?:(?P<over>\d{{1,300}})\s?/\s?(?P<under>\d{{1,300}})(?![\d.]*\d)"
    rf"|(?P<whole>{DIGITS})(?:\.(?P<decimals>\d+))?(?:[eE](?P<exponent>[-+]?\d{{1,20}})(?!\w))?"
    r"|\.(?P<only>\d+))"
)
LATEX = [
    (re.compile(r"[−–‒]"), "-"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\^\s*\{\s*o\s*\}|°|\\degree\b"), " degrees "),
    (re.compile(r"\\left|\\right|\\displaystyle|\\[()\[\]]|\\!"), ""),
    (re.compile(r"(?<=\d)(?:\\,|\{,\}|\\ |[\u00a0\u202f\u2009])(?=\d{3})"), ","),
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|×|\*)\s*10\s*\^\s*\{?\s*(-?\d{1,4})\s*\}?"), r"e\1"),
    (re.compile(r"(-?)(\d{1,18})\s*\\[dt]?frac\s*\{\s*(\d{1,18})\s*\}\s*\{\s*(\d{1,18})\s*\}"), r"\1\2 \3/\4"),
    (
        re.compile(r"\\[dt]?frac\s*\{\s*(-?\d{1,300})\s*\}\s*\{\s*(\d{1,300})\s*\}|\\[dt]?frac\s*(\d)\s*(\d)"),
        r"\1\3/\2\4",
    ),
]
MIXED = re.compile(r"(?<![\w.,/])(-?)(\d{1,18}) (\d{1,18})/(\d{1,18})(?![\d/])")
PERCENT = re.compile(r"\s?(?:\\?%|percent\b)")
LARGE = r"dozen|hundred|thousand|million|billion|trillion"
LARGE_ELSEWHERE = r"[万萬亿億兆만억]|[千百](?![米克瓦])"
BEHIND = re.compile(rf"\s?(?:\\?%|percent\b|{LARGE}|{LARGE_ELSEWHERE})", re.IGNORECASE)
STATEMENTS = 20
"""How many of the last statements of the response are looked at."""
NAMED = re.compile(
    r"\s*\$?\s*(?:[a-zA-Z]|\\(?:alpha|beta|gamma|delta|theta|phi|varphi|omega|lambda|mu)|m?\s*\\angle\s*\{?[A-Z]{1,3}\}?)"
    r"(?:_(?:[a-zA-Z0-9]|\{[a-zA-Z0-9]{1,4}\}))?\s*=(?!=)"
)
"""The name of what is boxed: x =, x_1 =, \\theta =, m\\angle ABC =."""
OPERATION = re.compile(
    r"[+*^=<>√!_|²³¹⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉]|\.\s?\.|%.*%|[-+]\s*-|\d(?![eE][-+]?\d)[a-zA-Z](?![a-zA-Z])"
    r"|\\(?!%|text\b|mathrm\b|mbox\b|circ\b)|\d\s*-\s*\d"
)
CHANGED = re.compile(
    r"\b(?:not|none|never|neither|nor|anything but|minus|negative|less|fewer|more|than|at (?:least|most)|about|approximately"
    r"|roughly|around|nearly|almost|half|third|twice|double|squared|cubed|or)\b|n't\b",
    re.IGNORECASE,
)
"""Words that change the number next to them, or leave it open."""
BOUND = re.compile(r"[<>≤≥≈~]")
POWER_BEHIND = re.compile(
    r"\s*(?:[!^_²³⁴]|[a-zA-Z](?![a-zA-Z])|(?:squared|cubed|(?:less|more|fewer) than)\b)", re.IGNORECASE
)
AMOUNT = re.compile(rf"\b(?:{LARGE})|{LARGE_ELSEWHERE}", re.IGNORECASE)


class NumberAnswer(Grader, frozen=True):
    version: ClassVar[str] = "4"

    tolerance: float = 0.0
    """Largest difference from the reference that still counts as equal. 0: the numbers must be exactly equal."""
    tolerance_kind: Literal["absolute", "relative"] = "relative"
    """absolute: tolerance is a difference; relative: it is a share of the reference."""
    percent: Literal["ignore", "value"] = "ignore"
    """ignore: 50% is 50. value: 50% is 0.5."""
    pattern: str | None = None
    """Regular expression with one group; the number in its last match is the answer. None: no pattern."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < float("inf"):
            raise ScoringFault(f"option tolerance = {self.tolerance} must be a number of at least 0")
        if self.pattern is None:
            return
        try:
            groups = re.compile(self.pattern).groups
        except re.error as fault:
            raise ScoringFault(f"option pattern = {self.pattern!r} is not a regular expression: {fault}") from fault
        if groups != 1:
            raise ScoringFault(f"option pattern = {self.pattern!r} has {groups} groups; it needs exactly one")

    def check(self, reference: Any) -> None:
        self._number_of_reference(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        gold = self._number_of_reference(reference)
        text, must_be_single = self._stated(response)
        if text is None:
            return Judgment(False, "no answer in the response")
        numbers = self._numbers(text)
        if not numbers:
            return Judgment(False, f"no number in {text[:SHOWN_CHARACTERS]!r}")
        if must_be_single and (len(numbers) > 1 or CHANGED.search(text)):
            return Judgment(False, f"more than one number in {text[:SHOWN_CHARACTERS]!r}")
        answer = numbers[-1]
        if answer is None:
            return Judgment(False, f"no readable number in {text[-SHOWN_CHARACTERS:]!r}")
        allowed = Fraction(repr(self.tolerance)) * (abs(gold) if self.tolerance_kind == "relative" else 1)
        if abs(answer - gold) <= allowed:
            return Judgment(True)
        return Judgment(False, f"answer {_written(answer)}")

    def _stated(self, response: str) -> tuple[str | None, bool]:
        """The text in which the number is looked for, and whether it must be the only one there."""
        if self.pattern is not None:
            found = deque(re.finditer(self.pattern, response), maxlen=1)
            return (found[0][1] if found else None), True
        if (box := boxed(response)) is not None:
            return (box.text if box.text is None or not _is_computed(box.text) else ""), True
        if (hashes := response.rfind("####")) >= 0:
            return response[hashes + 4 :].lstrip().partition("\n")[0], True
        response = NOISE.sub("", response)
        stated: tuple[str | None, bool] = (response, False)
        for start in statements(response, STATEMENTS):
            statement = _plain(response[start : start + LONGEST_NUMBER]).lstrip("*_$\\([ ")
            if CHANGED.match(statement) or BOUND.match(statement):
                stated = "", True
            elif number := NUMBER.match(statement):
                sentence, behind = sentence_of(statement), statement[number.end() :]
                if is_denied(behind):
                    stated = "", True
                elif "=" in sentence:
                    stated = sentence.rpartition("=")[2], False
                elif POWER_BEHIND.match(statement, number.end()):
                    stated = "", True
                elif has_rival(behind):
                    stated = f"{number[0]} or another", True
                else:
                    unit = BEHIND.match(statement, number.end())
                    stated = statement[: unit.end() if unit else number.end()], False
        return ("", True) if stated == (response, False) and _is_open(response) else stated

    def _numbers(self, text: str) -> list[Fraction | None]:
        """The last two numbers. None for one that is written like a number but has no value: a division by zero, a huge
        exponent."""
        text = _plain(text)
        numbers: list[Fraction | None] = []
        for found in deque(NUMBER.finditer(text), maxlen=2):
            value = _value(found)
            if value is not None and self.percent == "value" and PERCENT.match(text, found.end()):
                value /= 100
            if AMOUNT.match(text[found.end() : found.end() + 20].replace("\\text{", "").lstrip()):
                value = None
            numbers.append(value)
        return numbers

    def _number_of_reference(self, reference: Any) -> Fraction:
        if isinstance(reference, bool) or not isinstance(reference, str | int | float):
            raise ScoringFault(f"reference must be a string or a number, not {type(reference).__name__}")
        if isinstance(reference, int):
            return Fraction(reference)
        text = repr(reference) if isinstance(reference, float) else reference
        if len(text) > LONGEST_NUMBER:
            raise ScoringFault(f"reference of {len(text)} characters is too long for a number")
        numbers = self._numbers(text)
        if len(numbers) != 1 or numbers[0] is None or _is_computed(text):
            raise ScoringFault(f"reference {text[:SHOWN_CHARACTERS]!r} is not one number")
        return numbers[0]


def _is_open(text: str) -> bool:
    """Whether the words around the last number deny it or offer another."""
    text = _plain(text)
    found = deque(NUMBER.finditer(text), maxlen=1)
    if not found:
        return False
    before, behind = text[: found[0].start()], text[found[0].end() :]
    return is_alternative(before) or is_ruled_out(before, behind)


def _is_computed(text: str) -> bool:
    number = _plain(NAMED.sub("", text, count=1)).strip(" $")
    return OPERATION.search(number[1:] if re.match(r"[-+][^-+]", number) else number) is not None


def _plain(text: str) -> str:
    for pattern, replacement in LATEX:
        text = pattern.sub(replacement, text)
    return MIXED.sub(_improper, text)


def _improper(found: re.Match[str]) -> str:
    sign, whole, over, under = found.groups()
    return f"{sign}{int(whole) * int(under) + int(over)}/{under}"


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found[0]) > LONGEST_NUMBER:
        return None
    if found["over"]:
        value = Fraction(int(found["over"]), int(found["under"])) if int(found["under"]) else None
    else:
        exponent = int(found["exponent"] or 0)
        if abs(exponent) > LARGEST_EXPONENT:
            return None
        whole, decimals = (found["whole"] or "0").replace(",", ""), found["decimals"] or found["only"] or "0"
        value = Fraction(f"{whole}.{decimals}") * Fraction(10) ** exponent
    negative = (found["sign"].strip() == "-") != (found["inner"] == "-")
    return -value if value is not None and negative else value


def _written(number: Fraction) -> str:
    return str(number)[:SHOWN_CHARACTERS]
