"""JSON text, read as strictly as RFC 8259 recommends: text that two readers could understand differently is refused.

Refused: a name that occurs twice in an object, NaN and Infinity, numbers beyond a double's range, nesting deeper than
asked for. Raises nothing but NotJson, for any text.
"""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from verifier.graders.fences import fenced_blocks

JSON = ("", "json", "jsonc", "json5")
"""Languages of the blocks that are read; what is in them is strict JSON all the same."""
MAX_DEPTH = 64
"""Arrays and objects within each other: far more than anyone writes on purpose, and within every reader's own limits."""

LONGEST_INTEGER = 310
"""Characters. The largest double has 309 digits; longer integers are not even converted."""


class NotJson(Exception):
    """Why, in a few words, none of which come from the text."""


def read_json(text: str, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of the text. Raises NotJson when it is not strict JSON, or nested deeper than max_depth."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as fault:
        raise NotJson(f"not JSON: {fault.msg} at character {fault.pos}") from None
    except RecursionError:
        raise NotJson("nested too deeply") from None
    if _deeper_than(value, max_depth):
        raise NotJson(f"nested deeper than {max_depth}")
    return value


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal: 1 equals 1.0, true does not equal 1, and the order of names is free."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def last_fenced_json(text: str) -> str | None:
    """The body of the last complete fenced block that is marked json or not marked at all. None: there is none."""
    found = [block for block in fenced_blocks(text) if block.closed and block.language in JSON]
    return found[-1].text.lstrip("\u200b\u2060\ufeff") if found else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise NotJson("an object has a name twice")
    return value


def _no_constant(constant: str) -> NoReturn:
    raise NotJson(f"{constant} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER or math.isinf(float(digits)):
        raise NotJson("a number is beyond a double's range")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotJson("a number is beyond a double's range")
    return number


def _deeper_than(value: Any, depth: int) -> bool:
    """Whether objects and arrays are nested deeper than this. Works level by level, without recursion."""
    level = _nested([value])
    for _ in range(depth):
        level = _nested(inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer))
    return bool(level)


def _nested(values: Iterable[Any]) -> list[dict[str, Any] | list[Any]]:
    return [value for value in values if isinstance(value, dict | list)]
