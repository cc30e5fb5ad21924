"""A stream on a Redis server. The atomic steps are scripts (scripts.py); redis_connection.py deals with lost connections.

A claim looks, in this order, for entries that this consumer owns but this object does not hold (from before a restart, or
delivered into a lost connection: the first claim looks for them, and the first after an answer was lost), for entries that were
given back, for entries that were not renewed for `reclaim_idle_s`, and for new ones. Lending an entry out again adds one to its
delivery count; renewing does not.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from services.clock import now_s
from services.streams import names, scripts
from services.streams.fence import FENCE_KEYS, FencedConnection
from services.streams.redis_connection import CommandRefused, RedisConnection
from services.streams.stream import SUSPECT_DELIVERIES, Claim, Entry, IssueGap, Stream, StreamDepth

Server = RedisConnection | FencedConnection
ISSUED = "issued"
"""The counter of the run's training groups."""
OTHER_COUNTERS_S = 7 * 86_400
"""How long another counter is kept after its last number: each evaluation has one, and would leave it for ever."""
RELEASED = "-released-"
ENTRIES_AT_ONCE = 16
PENDING_AT_ONCE = 1000
ISSUED_AT_ONCE = 128  # prompts; one script, during which the server answers nobody else
LARGE_BYTES = 32 * 1024  # a mean payload: from about here a second command costs less than two copies
LONGEST_SILENCE_S = 1.0  # a claim that waits for new entries looks this often for released and idle ones


class RedisStream:
    """One consumer of one stream. An entry that its process lost goes to a consumer again after the idle time.

    Calls of `claim` on one object take turns; all other methods may run in any thread at the same time.
    """

    def __init__(
        self,
        connection: Server,
        run: str,
        name: str,
        consumer: str,
        reclaim_idle_s: float,
        *,
        suspect_deliveries: int = SUSPECT_DELIVERIES,
    ) -> None:
        """suspect_deliveries: entries that were lent out this often are lent to it one at a time."""
        self.name = name
        self.consumer = consumer
        self.key = f"ratchet:{run}:{name}"
        self._connection = connection
        self._idle_ms = max(1, int(reclaim_idle_s * 1000))
        self._next_idle_look_s = 0.0
        self._held: set[str] = set()
        self._lost_answers: int | None = None  # of the connection, when no entry of ours was missing; None: one may be
        self._suspects: set[str] = set()
        self._suspect_deliveries = suspect_deliveries
        self._claiming = threading.Lock()

    def claim(self, count: int, block_s: float) -> list[Claim]:
        end_s = now_s() + block_s
        with self._claiming:
            while True:
                claims = self._lend(count, min(max(0.0, end_s - now_s()), LONGEST_SILENCE_S))
                self._held.update(claim.entry_id for claim in claims)
                if claims or now_s() >= end_s:
                    return claims

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        lost = set(self._run(scripts.RENEW, self.consumer, *_ids(claims))) if claims else set()
        lost_claims = [claim for claim in claims if claim.entry_id.encode() in lost]
        self._held.difference_update(_ids(lost_claims))
        return lost_claims

    def hand_over(self, claim: Claim, to: Stream, payload: bytes) -> bool:
        return self.hand_over_many([(claim, payload)], to)[0]

    def hand_over_many(self, results: Sequence[tuple[Claim, bytes]], to: Stream) -> list[bool]:
        if not isinstance(to, RedisStream) or to._connection.address != self._connection.address:
            raise TypeError(f"{self.name} can only hand over to a stream on its own server, {self._connection.address}")
        if not results:
            return []
        owed = self._moved(results, to.key)
        self._held.difference_update(claim.entry_id for claim, _ in results)
        return [bool(one) for one in owed]

    def _moved(self, results: Sequence[tuple[Claim, bytes]], to: str) -> list[int]:
        """Large payloads in a transaction, small ones in a script, which is one command and admitted by a full server."""
        if sum(len(payload) for _, payload in results) >= LARGE_BYTES * len(results):
            appends = [("XADD", to, "*", "p", payload) for _, payload in results]
            ids = [claim.entry_id for claim, _ in results]
            try:
                *_, owed = self._connection.transaction(appends, scripts.SETTLE, [self.key, to], ids)
                return list(owed)
            except CommandRefused as refusal:
                if (
                    refusal.code != "EXECABORT"
                ):  # nothing has run: the server is full, or XADD is not allowed outside a script
                    raise
        args = [value for claim, payload in results for value in (claim.entry_id, payload)]
        return list(self._connection.run_script(scripts.HAND_OVER, [self.key, to], args))

    def acknowledge(self, claims: Sequence[Claim]) -> int:
        owed: int = self._run(scripts.ACKNOWLEDGE, *_ids(claims)) if claims else 0
        self._held.difference_update(_ids(claims))
        return owed

    def release(self, claims: Sequence[Claim] | None = None) -> None:
        with self._claiming if claims is None else nullcontext():
            ids = list(self._held) if claims is None else _ids(claims)
            if ids:
                self._run(scripts.RELEASE, self.consumer, *ids)
                self._held.difference_update(ids)

    def release_of(self, consumer: str) -> None:
        """Give back what another consumer holds, whose process is gone or has not been heard of: others get it at once. Its
        delivery counts, and if it hands over after all, that counts too where nobody was faster."""
        self._run(scripts.RELEASE_OF, consumer)

    def forget_idle(self, idle_s: float) -> int:
        """Forget consumers that hold nothing and have asked for nothing for so long, and return how many: each container has a
        name of its own, and the server would keep them all."""
        return int(self._run(scripts.FORGET, int(idle_s * 1000)))

    def depth(self) -> StreamDepth:
        entries, pending, oldest_ms = self._run(scripts.DEPTH)
        return StreamDepth(max(0, entries - pending), pending, oldest_age_s=oldest_ms / 1000)

    def peek(self, count: int) -> list[bytes]:
        rows = self._connection.execute("XRANGE", self.key, "-", "+", "COUNT", count)
        return [fields[1] for _, fields in rows or ()]  # a count of 0 is answered with null

    def entries(self) -> Iterator[Entry]:
        """Every entry, the oldest first, with who holds it; claims none. Entries that move meanwhile may be missing."""
        start = "-"
        while rows := self._connection.execute("XRANGE", self.key, start, "+", "COUNT", ENTRIES_AT_ONCE):
            first, last = rows[0][0], rows[-1][0]
            try:
                pending = self._connection.execute("XPENDING", self.key, "workers", first, last, PENDING_AT_ONCE)
            except CommandRefused as refusal:
                if refusal.code != "NOGROUP":
                    raise
                pending = []
            owners = {entry_id: (owner.decode(errors="replace"), count) for entry_id, owner, _, count in pending}
            for entry_id, fields in rows:
                owner, deliveries = owners.get(entry_id, (None, 0))
                yield Entry(entry_id.decode(), fields[1], None if owner == RELEASED else owner, deliveries)
            start = f"({last.decode()}"

    def _lend(self, count: int, block_s: float) -> list[Claim]:
        idle_ms = 0
        if now_s() >= self._next_idle_look_s:
            idle_ms = self._idle_ms
            self._next_idle_look_s = now_s() + self._idle_ms / 4000
        if self._suspects:
            self._suspects.intersection_update(self._held_now())
        # The server knows every claim. It is asked for those that are missing here only where an answer may have been lost: a
        # learner holds thousands, and naming them all in every claim cost the server more than everything else.
        before = self._connection.lost_answers
        own = [] if self._lost_answers == before else ["own", *self._held_now()]
        self._lost_answers = None
        asked = count, idle_ms, self._suspect_deliveries, int(bool(self._suspects))
        lent = self._run(scripts.CLAIM, self.consumer, *asked, *own)
        claims = [Claim(entry_id.decode(), payload, deliveries) for entry_id, payload, deliveries in lent]
        self._suspects.update(claim.entry_id for claim in claims if claim.deliveries >= self._suspect_deliveries)
        if len(claims) < count:
            claims += self._new(count - len(claims), 0.0 if claims else block_s)
            if not self._suspects:  # else one of our own may have been kept back, because suspects are lent alone
                self._lost_answers = before
        return claims

    def _held_now(self) -> tuple[str, ...]:
        """A copy, because other threads let go of claims at the same time."""
        return tuple(self._held)

    def _new(self, count: int, block_s: float) -> list[Claim]:
        """Entries that nobody has claimed before, the first of which may take block_s seconds to come."""
        block = ("BLOCK", max(1, int(block_s * 1000))) if block_s else ()  # 0 would wait forever
        group = ("GROUP", "workers", self.consumer, "COUNT", count, *block)
        try:
            answer = self._connection.execute("XREADGROUP", *group, "STREAMS", self.key, ">", block_s=block_s)
        except CommandRefused as refusal:
            if refusal.code != "NOGROUP":
                raise
            return []  # the stream was deleted under the waiting reader; the next claim makes the consumer group again
        return [Claim(entry_id.decode(), fields[1], 1) for entry_id, fields in (answer[0][1] if answer else ())]

    def _run(self, script: str, *args: str | int) -> Any:
        return self._connection.run_script(script, [self.key], args)


class RedisIssueLog:
    """Numbered entries of one stream. Their count is a key of its own, and both change in one step."""

    def __init__(self, connection: Server, stream: RedisStream, counter: str = ISSUED) -> None:
        self._connection = connection
        self._stream = stream
        self._counter_key = f"{stream.key}:{counter}"
        self._kept_s = 0 if counter == ISSUED else OTHER_COUNTERS_S

    def issue(self, sequence_number: int, payload: bytes) -> bool:
        return self.issue_many(sequence_number, [payload]) == 1

    def issue_many(self, first_number: int, payloads: Sequence[bytes]) -> int:
        keys = [self._stream.key, self._counter_key]
        new = 0
        for start in range(0, len(payloads), ISSUED_AT_ONCE):
            number = first_number + start
            some = payloads[start : start + ISSUED_AT_ONCE]
            outcome, count = self._connection.run_script(scripts.ISSUE, keys, [number, self._kept_s, *some])
            if outcome < 0:
                raise IssueGap(self._stream.key, sequence_number=number, issued_count=count)
            new += outcome
        return new

    def advance(self, count: int) -> None:
        self._connection.run_script(scripts.ADVANCE, [self._counter_key], [count])

    def issue_again(self, payload: bytes) -> None:
        self._connection.run_script(scripts.APPEND, [self._stream.key], [payload])

    def issued_count(self) -> int:
        return int(self._connection.execute("GET", self._counter_key) or 0)


def empty_queues(connection: RedisConnection, run: str) -> None:
    """Delete every entry of the run's queues, and the count of issued groups: the run begins with nothing. Nobody may use
    them meanwhile. What else is kept of the run stays, such as the number of its starts."""
    keys = [f"ratchet:{run}:{name}" for name in (*names.ALL, *FENCE_KEYS)]
    connection.execute("DEL", *keys, f"ratchet:{run}:{names.PROMPTS}:{ISSUED}")


def _ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.entry_id for claim in claims]
