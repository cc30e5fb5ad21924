"""Verdicts that are known already. The key is everything that a verdict depends on: grader, its version, its options, the
reference and the response; a grader that changes its mind changes its version. Only verdicts are kept, never errors.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from services.wire.score import Score

_key_encoder = msgspec.json.Encoder(order="deterministic")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bool, float, str])


class Shelf(Protocol):
    """A bounded store of small values. Losing them costs time and nothing else, so its faults are its own affair."""

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    async def put_many(self, values: Mapping[bytes, bytes]) -> None: ...


class MemoryShelf:
    """The ones used last."""

    def __init__(self, max_entries: int) -> None:
        self._most = max_entries
        self._values: OrderedDict[bytes, bytes] = OrderedDict()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found = [self._values.get(key) for key in keys]
        for key, value in zip(keys, found, strict=True):
            if value is not None:
                self._values.move_to_end(key)
        return found

    async def put_many(self, values: Mapping[bytes, bytes]) -> None:
        for key, value in values.items():
            self._values[key] = value
            self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)


def key_of(grader: str, version: str, options: Mapping[str, Any], reference: Any, response: str) -> bytes:
    """16 bytes; the same for what is equal as JSON, whatever the order of its members."""
    return hashlib.blake2b(
        _key_encoder.encode((grader, version, options, reference, response)), digest_size=16
    ).digest()


def freeze(score: Score) -> bytes:
    """Of a verdict."""
    return _encoder.encode((score.verdict == "correct", score.reward, score.detail))


def thaw(value: bytes) -> Score | None:
    """None: it is not readable, perhaps of another version of this program."""
    try:
        correct, reward, detail = _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
    return Score(verdict="correct" if correct else "incorrect", reward=reward, detail=detail, elapsed_s=0.0)
