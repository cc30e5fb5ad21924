"""Verdicts that are already known. The key is everything that a verdict depends on: the grader, its version and options, the
reference answer and the response. A grader that judges differently has a new version. Only verdicts are kept, never errors.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from services.wire.verdict import Score

_key_encoder = msgspec.json.Encoder(order="deterministic")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bool, float, str])


class Shelf(Protocol):
    """A bounded store of small values. Losing one costs time and nothing else, so a shelf never raises for its own faults."""

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """One value for each key, None where there is none."""

    async def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keeps the values, and drops others when there are too many."""


class MemoryShelf:
    """Keeps the entries that were used last, in this process."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
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
        while len(self._values) > self._max_entries:
            self._values.popitem(last=False)


def key_of(grader: str, version: str, options: Mapping[str, Any], reference: Any, response: str) -> bytes:
    """The key of one verdict: 16 bytes, the same for values that are equal as JSON, in any order of their members."""
    return hashlib.blake2b(
        _key_encoder.encode((grader, version, options, reference, response)), digest_size=16
    ).digest()


def freeze(score: Score) -> bytes:
    """A score with a reward, as bytes. The time is left out."""
    return _encoder.encode((score.verdict == "correct", score.reward, score.detail))


def thaw(value: bytes) -> Score | None:
    """The score, or None when the value cannot be read, perhaps because another version of this program wrote it."""
    try:
        correct, reward, detail = _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
    return Score(verdict="correct" if correct else "incorrect", reward=reward, detail=detail, elapsed_s=0.0)
