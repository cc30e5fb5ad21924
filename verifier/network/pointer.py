"""JSON pointers (RFC 6901): where a field is found in an answer, and where it goes in a request."""

from collections.abc import Mapping
from typing import Any

MISSING = object()


def steps(pointer: str) -> list[str]:
    """The pointer's parts, unescaped. Raises ValueError for text that is not a JSON pointer."""
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is not a JSON pointer; it begins with a slash, for example /reward")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def found(document: Any, pointer: str) -> Any:
    """The value that the pointer leads to, or MISSING if the document has no such place."""
    for step in steps(pointer):
        if isinstance(document, Mapping) and step in document:
            document = document[step]
        elif isinstance(document, list) and step.isascii() and step.isdigit() and len(step) < 10:
            if int(step) >= len(document):
                return MISSING
            document = document[int(step)]
        else:
            return MISSING
    return document


def put(document: dict[str, Any], pointer: str, value: Any) -> None:
    """Set the value, creating objects on the way. Raises ValueError if a value is already there, or if the pointer stands for
    the whole document."""
    *way, last = steps(pointer) or [""]
    for step in way:
        document = document.setdefault(step, {})
        if not isinstance(document, dict):
            raise ValueError(f"{pointer!r} goes through a value that is already there")
    if not pointer or last in document:
        raise ValueError(f"{pointer!r} is already taken")
    document[last] = value
