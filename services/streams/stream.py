"""The seam between rooms: one append-only stream, one consumer group; entries are claimed, worked on and handed over.

Claiming lends an entry to one consumer. Handing over is atomic: acknowledge the entry here and append its result to the
next stream, or do nothing because somebody else already did. A claim that is neither renewed nor handed over goes to
another consumer after an idle time. So every entry crosses each stage exactly once, whoever dies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.errors import StreamError


@dataclass(frozen=True, slots=True)
class Claim:
    """An entry that is lent to this consumer."""

    entry_id: str
    payload: bytes
    deliveries: int
    """How often the entry was lent out, this time included."""


@dataclass(frozen=True, slots=True)
class StreamDepth:
    waiting: int
    """Entries nobody has claimed."""
    pending: int
    """Entries that are lent out."""


class Stream(Protocol):
    """Every method is safe to call again after a lost connection and raises StreamError when the server stays away.

    Methods block; coroutines call them in a thread. One object a consumer name: two objects that share a name take each
    other's claims for ones left over from a restart.
    """

    name: str

    def claim(self, count: int, block_s: float) -> list[Claim]:
        """Up to `count` entries, waiting up to `block_s` seconds for the first. Entries this consumer held before a
        restart come first, then those given back, then those others let lie, then new ones."""

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Say that these are still being worked on; returns those that are no longer lent to this consumer. Handing one
        of them over is harmless and counts if nobody was faster."""

    def hand_over(self, claim: Claim, to: "Stream", payload: bytes) -> bool:
        """Acknowledge and append in one step. False: this entry has been handed over already, by somebody else or by an
        earlier try of this very call whose answer was lost."""

    def hand_over_many(self, results: Sequence[tuple[Claim, bytes]], to: "Stream") -> list[bool]:
        """hand_over for several entries in one round trip; each is a step of its own in its outcome."""

    def acknowledge(self, claims: Sequence[Claim]) -> int:
        """Settle entries that go nowhere further; returns how many were still owed."""

    def release(self, claims: Sequence[Claim] | None = None) -> None:
        """Give claims back at a clean stop: others get them within a second, and this delivery does not count as one.
        None: all this object holds, those of a claim whose caller was cancelled included."""

    def depth(self) -> StreamDepth:
        """How much is in the stream now."""

    def peek(self, count: int) -> list[bytes]:
        """The oldest payloads, waiting or pending, claiming nothing: for inspection."""


class IssueLog(Protocol):
    """Appends numbered entries to a stream, each number once: how the learner issues prompts."""

    def issue(self, sequence_number: int, payload: bytes) -> bool:
        """Append entry `sequence_number` and count it, in one step. False: it was issued before, and nothing happened.
        Raises IssueGap when numbers below it were never issued."""

    def skip(self, sequence_number: int) -> None:
        """Count this number without an entry: it was settled before the server lost its data."""

    def issued_count(self) -> int:
        """How many were issued; also the next sequence number."""


class IssueGap(StreamError):
    """A sequence number is ahead of the log. The server has lost its last moments, or belongs to another run."""

    def __init__(self, stream: str, *, sequence_number: int, issued_count: int) -> None:
        super().__init__(
            f"entry {sequence_number} cannot be issued to {stream}: the log holds only {issued_count}. "
            f"Issue again from {issued_count}; if the server was emptied, start the run under another name."
        )
        self.issued_count = issued_count
