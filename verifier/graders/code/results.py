"""Whether what a graded program returned or printed is what the test expects."""

import math
import re
from typing import Any

WHOLE = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE)
NUMBER_CHARACTERS = 400  # a longer word of the output is compared as text
_SPACES = re.compile(r"(\s+)")

NOISE = 1e-6
"""Numbers that are not whole may differ by this much, or by this share if they are below 1: what is left of an exact answer
where a test has six decimals or adds in another order."""
ROUNDING = 1e-12
"""Share by which large numbers may differ, and small ones from 0: about a thousand roundings of a double."""


def same(result: Any, expected: Any, tolerance: float | None) -> bool:
    """Whether two JSON values are equal; numbers within the tolerance, unless both are whole. None: but for NOISE."""
    if isinstance(result, bool) or isinstance(expected, bool):
        return result is expected
    if isinstance(result, int | float) and isinstance(expected, int | float):
        return _same_number(result, expected, tolerance)
    if isinstance(result, list) and isinstance(expected, list | tuple):
        return len(result) == len(expected) and all(
            same(one, other, tolerance) for one, other in zip(result, expected, strict=True)
        )
    if isinstance(result, dict) and isinstance(expected, dict):
        return result.keys() == expected.keys() and all(same(result[key], expected[key], tolerance) for key in result)
    return type(result) is type(expected) and bool(result == expected)


def same_output(printed: str, expected: str, tolerance: float | None) -> bool:
    """Whether two outputs are equal: line by line without a tolerance, and with None, where words that the test writes with
    decimals may differ by NOISE; word by word with a tolerance. A byte order mark at the beginning does not count."""
    printed, expected = printed.removeprefix("\ufeff"), expected.removeprefix("\ufeff")
    lines, expected_lines = _lines(printed), _lines(expected)
    if lines == expected_lines or tolerance == 0.0:
        return lines == expected_lines
    if tolerance is None:
        return len(lines) == len(expected_lines) and all(map(_same_line, lines, expected_lines))
    words, expected_words = printed.split(), expected.split()
    return len(words) == len(expected_words) and all(
        one == other or _same_word(one, other, tolerance) for one, other in zip(words, expected_words, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_line(line: str, expected: str) -> bool:
    """Whether two lines are equal but for the noise of the numbers that are expected with decimals."""
    if line == expected:
        return True
    words, expected_words = _SPACES.split(line), _SPACES.split(expected)
    return len(words) == len(expected_words) and all(
        one == other or (not (WHOLE.fullmatch(other) or WHOLE.fullmatch(one)) and _same_word(one, other, None))
        for one, other in zip(words, expected_words, strict=True)
    )


def _same_word(one: str, other: str, tolerance: float | None) -> bool:
    if max(len(one), len(other)) > NUMBER_CHARACTERS:
        return False
    try:
        return _same_number(_number(one), _number(other), tolerance)
    except ValueError:
        return False


def _number(word: str) -> float:
    """The number that a word is; whole numbers as int, so that they are compared exactly. Raises ValueError."""
    if not NUMBER.fullmatch(word):
        raise ValueError(word)
    return int(word) if WHOLE.fullmatch(word) else float(word)


def _same_number(one: float, other: float, tolerance: float | None) -> bool:
    if one == other:
        return True
    if isinstance(one, int) and isinstance(other, int):
        return False
    try:
        if math.isnan(one) and math.isnan(other):
            return True
        if tolerance is None:
            larger = max(abs(one), abs(other))
            allowed = ROUNDING * max(1.0, larger) + NOISE * min(1.0, larger)
            return math.isfinite(larger) and abs(one - other) <= allowed
        return tolerance > 0.0 and math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # a whole number that no float can hold
        return False
