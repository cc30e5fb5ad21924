import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from fastapi import Request

from verifier.http.body import DRAINED_BODIES, read_body


def read(parts: list[bytes], limit_bytes: int, declared: int | None = None) -> tuple[bytearray | None, int]:
    """The body, and how many parts of it were read."""
    taken = 0

    async def receive() -> MutableMapping[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": parts[taken - 1], "more_body": taken < len(parts)}

    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)
    return asyncio.run(read_body(request, limit_bytes)), taken


def test_a_body_up_to_the_limit_is_read_whole() -> None:
    assert read([b"12", b"34"], 4) == (bytearray(b"1234"), 2)


@pytest.mark.parametrize("declared", [None, 3, 5])
def test_a_body_above_the_limit_is_none_with_any_declared_length(declared: int | None) -> None:
    assert read([b"12", b"345"], 4, declared) == (None, 2)


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    body, taken = read([b"1234"] * 100, 4)
    assert body is None
    assert taken == DRAINED_BODIES + 1
