"""JSON as the standard has it: every JSON file of a run is written here. Python's own writer puts NaN and Infinity where a number
is not finite, which other readers refuse together with the whole line."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON, on one line unless indented. A number that is not finite becomes null."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def finite(value: Any) -> Any:
    """The value with None for every number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def infinite(fields: Mapping[str, Any]) -> dict[str, str]:
    """Name -> "inf" or "-inf", of the fields that are infinite."""
    return {name: str(float(value)) for name, value in fields.items() if isinstance(value, float) and math.isinf(value)}


def read_json(text: str | bytes) -> Any:
    """A JSON value, with None for what earlier versions wrote as NaN or Infinity. Raises ValueError."""
    return json.loads(text, parse_constant=lambda _: None)
