"""What the pool and a grader process say to each other: messages over a socket pair, progress over a shared page.

Messages are JSON, because a reference answer may hold integers of any size and msgpack ends at 64 bits. The page answers the
one question that a message cannot: what is a process that no longer answers working on?
"""

import mmap
import struct
import zlib
from dataclasses import dataclass

import msgspec

from services.wire.verdict import Score
from verifier.contract import ScoreItem

PAGE_BYTES = 4096
HEADER = struct.Struct("<I")  # length of the message that follows
_PROGRESS = struct.Struct("<qqdd")
_RECORD_BYTES = _PROGRESS.size + 4
MOST_READS = 1000
"""After so many a page is not being written to: a grader has spoilt it. What it says then is what it is worth."""
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
    """Written by the grader process, read by the pool. A read is of one whole write, also where the writer is put off the
    processor or killed in the middle of one: it writes beside the last record, then the one byte that says which counts, and
    each record has a checksum, by which a reader that was overtaken reads again."""

    def __init__(self, file_descriptor: int) -> None:
        self._page = mmap.mmap(file_descriptor, PAGE_BYTES)

    def write(self, chunk: int, index: int, since_s: float, since_cpu_s: float) -> None:
        fields = _PROGRESS.pack(chunk, index, since_s, since_cpu_s)
        place = 1 - (self._page[0] & 1)
        at = _record_at(place)
        # Packed in place, the fields would be 0 for a moment: a time of 0 is that of an item which is late.
        self._page[at : at + _RECORD_BYTES] = fields + _checksum(fields)
        self._page[0] = place

    def read(self) -> ItemProgress:
        for _ in range(MOST_READS):
            at = _record_at(self._page[0] & 1)
            fields, checksum = (
                self._page[at : at + _PROGRESS.size],
                self._page[at + _PROGRESS.size : at + _RECORD_BYTES],
            )
            if checksum == _checksum(fields):
                break
        chunk, index, since_s, since_cpu_s = _PROGRESS.unpack(fields)
        return ItemProgress(chunk, index % LOADING, since_s, since_cpu_s, index >= LOADING)

    def close(self) -> None:
        """Frees the mapping and its file descriptor, which would otherwise last until garbage collection."""
        self._page.close()


def _record_at(place: int) -> int:
    """Where a record lies: behind the byte that names it, each in a cache line of its own."""
    return (1 + place) * 64


def _checksum(fields: bytes) -> bytes:
    """The checksum of zeros is zeros, so that a new page holds a record."""
    return (zlib.crc32(fields) ^ zlib.crc32(bytes(len(fields)))).to_bytes(4, "little")
