"""Numerals with a base behind them: 101_2, 2A_{16}, 12_{\\text{eight}}."""

import re

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.forms import Based

BASED = re.compile(r"([0-9A-Fa-f]+)\s*_\s*(?:\{\s*(?:\\text\{\s*(?:base)?\s*\}?)?\s*(\w+)\s*\}?\s*\}|(\d))")
BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}


def is_based(text: str) -> bool:
    """A numeral whose digits are all below its base."""
    return _based(text) is not None


def based(text: str) -> Based:
    numeral = _based(text)
    if numeral is None:
        raise Unreadable("not a numeral with a base")
    return numeral


def _based(text: str) -> Based | None:
    found = BASED.fullmatch(text.replace("\\text{base}", ""))
    if found is None:
        return None
    written = found[2] or found[3]
    base = int(written) if written.isdigit() else BASES.get(written.lower(), 0)
    if not base or any(int(digit, 36) >= base for digit in found[1]):
        return None
    return Based(found[1].upper().lstrip("0") or "0", base)
