"""Streams in memory that behave like the real ones, and a clock that a test can turn by hand.

prompts = MemoryStream("prompts", "rollout-0")
other = prompts.as_consumer("rollout-1")  # competes for the same entries
prompts.append(b"...")                    # as an issuer or the room before would do
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.streams.stream import SUSPECT_DELIVERIES, Claim, IssueGap, Stream, StreamDepth

RELEASED = ""


@dataclass
class Entry:
    payload: bytes
    owner: str | None = None  # None: not claimed; RELEASED: given back
    deliveries: int = 0
    renewed_s: float = 0.0


@dataclass
class Log:
    """What all consumers of one stream share. It holds no entries that were handed over or acknowledged."""

    entries: dict[str, Entry] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))


class MemoryStream:
    def __init__(
        self,
        name: str,
        consumer: str = "consumer-0",
        reclaim_idle_s: float = 60.0,
        *,
        now_s: Callable[[], float] = time.monotonic,
        log: Log | None = None,
        suspect_deliveries: int = SUSPECT_DELIVERIES,
    ) -> None:
        self._suspect_deliveries = suspect_deliveries
        self.name = name
        self.consumer = consumer
        self.reclaim_idle_s = reclaim_idle_s
        self._now_s = now_s
        self._log = log or Log()
        self._held: set[str] = set()

    def as_consumer(self, consumer: str) -> "MemoryStream":
        """The same stream seen by another consumer, or by the same one after a restart."""
        return MemoryStream(
            self.name,
            consumer,
            self.reclaim_idle_s,
            now_s=self._now_s,
            log=self._log,
            suspect_deliveries=self._suspect_deliveries,
        )

    def append(self, payload: bytes) -> str:
        with self._log.changed:
            entry_id = f"{next(self._log.numbers)}-0"
            self._log.entries[entry_id] = Entry(payload)
            self._log.changed.notify_all()
            return entry_id

    def claim(self, count: int, block_s: float) -> list[Claim]:
        with self._log.changed:
            # Real seconds even under a test's clock, which cannot be turned while this thread waits.
            end_s = time.monotonic() + block_s
            while not (claims := self._take(count)):
                if (remaining_s := end_s - time.monotonic()) <= 0:
                    return []
                self._log.changed.wait(min(remaining_s, 0.05))
            return claims

    def _take(self, count: int) -> list[Claim]:
        now_s, entries = self._now_s(), self._log.entries
        own = [i for i, e in entries.items() if e.owner == self.consumer and i not in self._held]
        released = [i for i, e in entries.items() if e.owner == RELEASED]
        idle = [
            i
            for i, e in entries.items()
            if e.owner not in (None, RELEASED) and now_s - e.renewed_s >= self.reclaim_idle_s and i not in own
        ]
        fresh = [i for i, e in entries.items() if e.owner is None]
        claims: list[Claim] = []
        suspects = {i for i in self._held if i in entries and entries[i].deliveries >= self._suspect_deliveries}
        for entry_id in own + released + idle + fresh:
            entry = entries[entry_id]
            is_suspect = entry.deliveries + 1 >= self._suspect_deliveries
            if len(claims) == count or (is_suspect and suspects):
                continue
            if is_suspect:
                suspects.add(entry_id)
            entry.owner = self.consumer
            entry.renewed_s = now_s
            entry.deliveries += 1
            self._held.add(entry_id)
            claims.append(Claim(entry_id, entry.payload, entry.deliveries))
        return claims

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        with self._log.changed:
            mine = {i: e for i, e in self._log.entries.items() if e.owner == self.consumer}
            lost = [claim for claim in claims if claim.entry_id not in mine]
            self._held.difference_update(claim.entry_id for claim in lost)
            for claim in claims:
                if claim.entry_id in mine:
                    mine[claim.entry_id].renewed_s = self._now_s()
            return lost

    def hand_over(self, claim: Claim, to: Stream, payload: bytes) -> bool:
        return self.hand_over_many([(claim, payload)], to)[0]

    def hand_over_many(self, results: Sequence[tuple[Claim, bytes]], to: Stream) -> list[bool]:
        if not isinstance(to, MemoryStream):
            raise TypeError(f"{self.name} is in memory and can only hand over to another MemoryStream")
        owed = []
        for claim, payload in results:
            owed.append(self.acknowledge([claim]) == 1)
            if owed[-1]:
                to.append(payload)
        return owed

    def acknowledge(self, claims: Sequence[Claim]) -> int:
        with self._log.changed:
            owed = 0
            for claim in claims:
                self._held.discard(claim.entry_id)
                entry = self._log.entries.get(claim.entry_id)
                if entry is not None and entry.owner is not None:
                    del self._log.entries[claim.entry_id]
                    owed += 1
            return owed

    def release(self, claims: Sequence[Claim] | None = None) -> None:
        with self._log.changed:
            for entry_id in list(self._held) if claims is None else [claim.entry_id for claim in claims]:
                self._held.discard(entry_id)
                entry = self._log.entries.get(entry_id)
                if entry is not None and entry.owner == self.consumer:
                    entry.owner = RELEASED
                    entry.deliveries -= 1
            self._log.changed.notify_all()

    def empty(self) -> None:
        """Lose every entry, as a server does that is emptied."""
        with self._log.changed:
            self._log.entries.clear()

    def depth(self) -> StreamDepth:
        with self._log.changed:
            waiting = sum(entry.owner is None for entry in self._log.entries.values())
            return StreamDepth(waiting, len(self._log.entries) - waiting)

    def peek(self, count: int) -> list[bytes]:
        with self._log.changed:
            return [entry.payload for entry in self._log.entries.values()][:count]


class MemoryIssueLog:
    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self._issued = 0

    def issue(self, sequence_number: int, payload: bytes) -> bool:
        if sequence_number > self._issued:
            raise IssueGap(self._stream.name, sequence_number=sequence_number, issued_count=self._issued)
        if sequence_number < self._issued:
            return False
        self._issued += 1
        self._stream.append(payload)
        return True

    def issue_many(self, first_number: int, payloads: Sequence[bytes]) -> int:
        return sum(self.issue(first_number + place, payload) for place, payload in enumerate(payloads))

    def advance(self, count: int) -> None:
        self._issued = max(self._issued, count)

    def issue_again(self, payload: bytes) -> None:
        self._stream.append(payload)

    def empty(self) -> None:
        """Forget the count."""
        self._issued = 0

    def issued_count(self) -> int:
        return self._issued
