"""What the pool and a grader process say to each other: messages over a socket pair, progress over a shared page. Messages
are JSON, which carries integers of any size, as a reference of JSON may be one; msgpack ends at 64 bits.

The page answers the one question that a message cannot: what is a process that no longer answers working on?
"""

import mmap
import struct
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

PAGE_BYTES = 4096
HEADER = struct.Struct("<I")  # length of the message that follows
_PROGRESS = struct.Struct("<qqdd")
LOADING = 1 << 32
"""Added to the index while the grader of that item is being imported."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first message to a grader process."""

    locations: dict[str, str]
    """Grader -> module:class."""
    memory_bytes: int
    """Address space that the process may use."""


class Task(msgspec.Struct, frozen=True, array_like=True):
    """One response to grade, or, without a response, one reference to check."""

    grader: str
    response: str | None
    reference: Any
    options: dict[str, Any]


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What became of a task. `error`: no verdict was possible, and detail says why. `memory`: it took more than there is.
    A reference that passed its check is `correct`."""

    outcome: Literal["correct", "incorrect", "error", "memory"]
    reward: float
    """Counts for `correct` and `incorrect` only."""
    detail: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    chunk: int
    index: int
    """Which item of the chunk is being graded."""
    since_s: float
    """Monotonic seconds, which all processes of a machine share."""
    since_cpu_s: float
    """CPU time that the process had used by then."""
    loading: bool


class ProgressPage:
    """Written by the grader process, read by the pool. While the writer lives, a read may mix two writes; so the pool
    decides to kill by what it reads, and whom to blame by what it reads after the death."""

    def __init__(self, file_descriptor: int) -> None:
        self._page = mmap.mmap(file_descriptor, PAGE_BYTES)

    def write(self, chunk: int, index: int, since_s: float, since_cpu_s: float) -> None:
        _PROGRESS.pack_into(self._page, 0, chunk, index, since_s, since_cpu_s)

    def close(self) -> None:
        """The mapping holds a file descriptor of its own, which else lasts until the collector comes by."""
        self._page.close()

    def read(self) -> Progress:
        chunk, index, since_s, since_cpu_s = _PROGRESS.unpack_from(self._page)
        return Progress(chunk, index % LOADING, since_s, since_cpu_s, index >= LOADING)
