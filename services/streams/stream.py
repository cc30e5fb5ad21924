"""The seam between rooms: an append-only stream with one consumer group, whose entries are claimed, worked on, handed over.

Claiming lends an entry to one consumer. Handing over is atomic: acknowledge the entry here and append its result to the
next stream, or do nothing because another consumer already did. A claim that is neither renewed nor handed over goes to
another consumer after an idle time. So every entry crosses each stage exactly once, whichever process dies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.errors import StreamError

SUSPECT_DELIVERIES = 3
"""An entry that is lent out for the third time has outlived two workers and may have killed them: a consumer holds one such entry
at a time, so that the third death names it and does not count against what happened to be in the same worker."""
NEVER_SUSPECT = 1 << 30
"""For a consumer that works on many entries at once and finds out by itself which of them kills it: the learner."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An entry that is lent to this consumer."""

    entry_id: str
    payload: bytes
    deliveries: int
    """Times that the entry was lent out, this one included."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as somebody sees it who does not claim it."""

    entry_id: str
    payload: bytes
    owner: str | None
    """The consumer that holds it; None: it waits for one."""
    deliveries: int
    """Times that it was lent out."""


@dataclass(frozen=True, slots=True)
class StreamDepth:
    """How many entries are in a stream."""

    waiting: int
    """Entries that no consumer has claimed."""
    pending: int
    """Entries that are lent out."""
    oldest_age_s: float = field(default=0.0, compare=False)
    """Seconds since the oldest entry, lent out or not, was appended, by the server's clock; 0 when there is none."""


class Stream(Protocol):
    """One consumer's end of a stream. Every method raises StreamError when the server stays away, and may be called again.

    Methods block; coroutines call them in a thread. Each consumer name belongs to one object: two objects with the same
    name would take each other's claims for ones left over from a restart.
    """

    name: str

    def claim(self, count: int, block_s: float) -> list[Claim]:
        """Up to `count` entries, or none if none came in `block_s` seconds.

        Entries that this consumer held before a restart come first, then those given back, then those that other
        consumers did not renew in time, then new ones. Of those with SUSPECT_DELIVERIES it holds one at a time.

        Waits for: the room before, to append an entry.
        Until: block_s; callers repeat it until they are stopped.
        Ended by: the first entry; block_s; the server staying away (StreamError).
        Metric: ratchet_waiting of the room that claims.
        """

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Say that these are still being worked on; returns the claims that this consumer has lost.

        Handing over a lost claim is harmless, and counts if no other consumer was faster.
        """

    def hand_over(self, claim: Claim, to: "Stream", payload: bytes) -> bool:
        """Acknowledge and append in one step; False when this entry was handed over before.

        That may have been another consumer, or an earlier try of this call whose answer was lost.
        """

    def hand_over_many(self, results: Sequence[tuple[Claim, bytes]], to: "Stream") -> list[bool]:
        """`hand_over` for several entries in one round trip; each has an outcome of its own."""

    def acknowledge(self, claims: Sequence[Claim]) -> int:
        """Settle entries that go no further; returns the number that were still owed."""

    def release(self, claims: Sequence[Claim] | None = None) -> None:
        """Give claims back at a clean stop: other consumers get them within a second, and this delivery does not count.

        None: all that this object holds, also those of a `claim` whose caller was cancelled.
        """

    def depth(self) -> StreamDepth:
        """The number of entries in the stream now."""

    def peek(self, count: int) -> list[bytes]:
        """The oldest payloads, waiting or pending, without claiming them."""


class IssueLog(Protocol):
    """Appends numbered entries to a stream, each number once: how the learner issues prompts."""

    def issue(self, sequence_number: int, payload: bytes) -> bool:
        """Append entry `sequence_number` and count it, in one step; False, and no change, when it was issued before.

        Raises IssueGap when numbers below it were never issued, ServerFull while the server has no memory for it.
        """

    def issue_many(self, first_number: int, payloads: Sequence[bytes]) -> int:
        """Issue entries with consecutive numbers, many in one step, and return how many of them were not issued before.

        Raises as `issue` does; some may be issued then, the first ones, and `issued_count` says how many.
        """

    def advance(self, count: int) -> None:
        """Count every number below `count` as issued, without entries: the server has lost its count."""

    def issue_again(self, payload: bytes) -> None:
        """Append the entry of a number that was issued before and is gone. A repeat of this call may append it twice. Raises
        ServerFull as `issue` does."""

    def issued_count(self) -> int:
        """The number of entries issued, which is the next sequence number."""


class IssueGap(StreamError):
    """A sequence number is ahead of the log: the server has lost its latest data, or belongs to another run."""

    def __init__(self, stream: str, *, sequence_number: int, issued_count: int) -> None:
        super().__init__(
            f"entry {sequence_number} cannot be issued to {stream}: the log holds only {issued_count}. "
            f"Issue again from {issued_count}; if the server was emptied, start the run under another name."
        )
