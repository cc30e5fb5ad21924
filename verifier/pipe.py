"""What the pool and a grader process say to each other: messages over a socket pair, progress over a shared page.

The page answers the one question that a message cannot: what is a process that no longer answers working on?
"""

import mmap
import struct
from dataclasses import dataclass
from typing import Any

import msgspec

PAGE_BYTES = 4096
HEADER = struct.Struct("<I")  # length of the message that follows
_PROGRESS = struct.Struct("<qqd")
LOADING = 1 << 32
"""Added to the index while the grader of that item is being imported."""


class Task(msgspec.Struct, frozen=True, array_like=True):
    """One response to grade."""

    grader: str
    response: str
    reference: Any
    options: dict[str, Any]


class Result(msgspec.Struct, frozen=True, array_like=True):
    """correct is None when no verdict was possible; detail then says why."""

    correct: bool | None
    detail: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    chunk: int
    index: int
    """Which item of the chunk is being graded."""
    since_s: float
    """Monotonic seconds, which all processes of a machine share."""
    loading: bool


class ProgressPage:
    """Written by the grader process, read by the pool. While the writer lives, a read may mix two writes; so the pool
    decides to kill by what it reads, and whom to blame by what it reads after the death."""

    def __init__(self, file_descriptor: int) -> None:
        self._page = mmap.mmap(file_descriptor, PAGE_BYTES)

    def write(self, chunk: int, index: int, since_s: float) -> None:
        _PROGRESS.pack_into(self._page, 0, chunk, index, since_s)

    def read(self) -> Progress:
        chunk, index, since_s = _PROGRESS.unpack_from(self._page)
        return Progress(chunk, index % LOADING, since_s, index >= LOADING)
