"""Reads the cells of a row; errors name the place, the column and what it should hold."""

import ast
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from services.datasets.sources import Row, UnreadableRow

LARGEST_WIRE_INTEGER = 2**63 - 1
"""Integers beyond it do not survive every reader of JSON and msgpack."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def cell(row: Row, name: str, expected: type | tuple[type, ...], description: str, *, empty: Any = None) -> Any:
    """The value of a column. Raises UnreadableRow when the row has no such column or it holds something else.

    empty: what null stands for; without it null is an error.
    """
    if name not in row.fields:
        raise UnreadableRow(
            f"{row.place} has no column {name}; it has {', '.join(row.fields) or 'none'}. "
            "Name the right ones in prompts.columns"
        )
    value = row.fields[name]
    if value is None and empty is not None:
        return empty
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not object):
        raise UnreadableRow(f"{row.place}: column {name} must be {description}, not {shown(value)}")
    return sendable(row, name, value) if isinstance(value, str) else value


def json_cell(row: Row, name: str, expected: type, description: str, *, empty: Any = None) -> Any:
    """As `cell`, for a column that may hold the JSON text of what is expected: a file whose columns have one type each cannot
    hold every object."""
    value = as_json(cell(row, name, object, ""))
    return cell(Row(row.place, {name: value}), name, expected, f"{description}, or its JSON text", empty=empty)


def as_json(value: object) -> object:
    """What a JSON text says, or the text of a list or an object in Python, which tables in CSV hold. Any other value, and a
    text that is neither, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return _python_literal(value)


def _python_literal(text: str) -> object:
    if text.lstrip()[:1] not in {"[", "{"}:
        return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text


def first_column(row: Row, *names: str) -> str:
    """The first name for which the row has a column; the first of all when it has none of them."""
    return next((name for name in names if name in row.fields), names[0])


def prompt_cell(row: Row, name: str) -> str | list[dict[str, str]]:
    """A text that is not empty, or a list of chat messages. Raises UnreadableRow."""
    value = cell(row, name, object, "")
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        sendable(row, name, value)
        return [{"role": message["role"], "content": message["content"]} for message in value]
    raise UnreadableRow(
        f"{row.place}: column {name} must be text or a list of messages with role and content, not {shown(value)}"
    )


def text_cell(row: Row, name: str, description: str = "text") -> str:
    """A text that is not empty or all white space. Raises UnreadableRow."""
    text: str = cell(row, name, str, description)
    if not text.strip():
        raise UnreadableRow(f"{row.place}: column {name} must be {description}, not {shown(text)}")
    return text


def reference_cell(row: Row, name: str) -> Any:
    """A JSON value that msgpack keeps unchanged; integers beyond 64 bits and decimals become text. Raises UnreadableRow."""
    value = cell(row, name, object, "")
    if isinstance(value, Decimal) or (isinstance(value, int) and abs(value) > LARGEST_WIRE_INTEGER):
        return str(value)
    if value is None:
        raise UnreadableRow(f"{row.place}: column {name} must be a JSON value other than null, not {shown(value)}")
    return sendable(row, name, value)


def sendable(row: Row, name: str, value: Any) -> Any:
    """The value, which is that of column `name`. Raises UnreadableRow where it is not as `why_not_json` wants it."""
    if why := why_not_json(value, name):
        raise UnreadableRow(f"{row.place}: column {name} must be a JSON value: {why}")
    return value


def why_not_json(value: object, name: str) -> str | None:
    """The place and the cause of what does not survive msgpack and JSON unchanged; None if all of the value does.

    name: what the value is called: the place begins with it, as in "options.parts[0].limit".
    """
    try:
        return next(_not_json(value, name), None)
    except RecursionError:
        return f"{name} is nested too deeply"


def _not_json(value: object, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _not_json(key, f"a name in {place}")
                yield from _not_json(inner, f"{place}.{key}")
            else:
                yield f"a name in {place} is {shown(key)}, and names are text"
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_json(inner, f"{place}[{index}]")
    elif why := _why_not_scalar(value):
        yield f"{place} is {shown(value)}, {why}"


def _why_not_scalar(value: object) -> str | None:
    if isinstance(value, str):
        broken = not value.isascii() and LONE_SURROGATE.search(value)
        return "which has half a surrogate pair, and is not Unicode text" if broken else None
    if isinstance(value, int):
        return "an integer beyond 64 bits; write it as text" if abs(value) > LARGEST_WIRE_INTEGER else None
    if value is None or (isinstance(value, float) and math.isfinite(value)):
        return None
    return "which JSON does not have"


def shown(value: object) -> str:
    """The type and the beginning of a value, for error messages."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        text = "of too many digits to be shown"
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
