"""What the pool and a grader process say to each other: messages over a socket pair, progress over a shared page.

Messages are JSON, because a reference answer may hold integers of any size and msgpack ends at 64 bits. The page answers the
one question that a message cannot: what is a process that no longer answers working on?
"""

import mmap
import struct
from dataclasses import dataclass

import msgspec

from services.wire.verdict import Score
from verifier.contract import ScoreItem

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


class GradeTask(msgspec.Struct, frozen=True, array_like=True):
    """What a grader process is asked about one item."""

    item: ScoreItem
    reference_only: bool = False
    """Check the reference answer and leave the response alone. One that passes is `correct`."""


class GradeResult(msgspec.Struct, frozen=True, array_like=True):
    """What became of a task."""

    score: Score
    out_of_memory: bool = False
    """The task took more memory than a grader process may use; the score is then no more than an error that says so."""


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """Where a grader process is, as its page says."""

    chunk: int
    index: int
    """Which item of the chunk is being graded."""
    since_s: float
    """Monotonic seconds, which all processes of a machine share."""
    since_cpu_s: float
    """CPU time that the process had used by then."""
    loading: bool
    """Its grader is being imported."""


class ProgressPage:
    """Written by the grader process, read by the pool. While the writer lives, a read may mix two writes. The pool may
    therefore kill by what it reads, but finds who is at fault by what it reads after the process has ended."""

    def __init__(self, file_descriptor: int) -> None:
        self._page = mmap.mmap(file_descriptor, PAGE_BYTES)

    def write(self, chunk: int, index: int, since_s: float, since_cpu_s: float) -> None:
        _PROGRESS.pack_into(self._page, 0, chunk, index, since_s, since_cpu_s)

    def read(self) -> ItemProgress:
        chunk, index, since_s, since_cpu_s = _PROGRESS.unpack_from(self._page)
        return ItemProgress(chunk, index % LOADING, since_s, since_cpu_s, index >= LOADING)

    def close(self) -> None:
        """Frees the mapping and its file descriptor, which would otherwise last until garbage collection."""
        self._page.close()
