"""Whether what a graded program returned or printed is what the test expects."""

import math
import re
from typing import Any

WHOLE = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE)
NUMBER_CHARACTERS = 400  # a longer word of the output is compared as text


def same(result: Any, expected: Any, tolerance: float) -> bool:
    """Whether two JSON values are equal; numbers within the tolerance, unless both are whole."""
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


def same_output(printed: str, expected: str, tolerance: float) -> bool:
    """Whether two outputs are equal line by line, or word by word if there is a tolerance."""
    if tolerance == 0.0:
        return _lines(printed) == _lines(expected)
    words, expected_words = printed.split(), expected.split()
    return len(words) == len(expected_words) and all(
        one == other or _same_word(one, other, tolerance) for one, other in zip(words, expected_words, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_word(one: str, other: str, tolerance: float) -> bool:
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


def _same_number(one: float, other: float, tolerance: float) -> bool:
    if one == other:
        return True
    if isinstance(one, int) and isinstance(other, int):
        return False
    try:
        if math.isnan(one) and math.isnan(other):
            return True
        return tolerance > 0.0 and math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # a whole number that no float can hold
        return False
