"""A stream on a Redis server. The atomic steps are scripts (scripts.py); redis_connection.py deals with lost connections.

A claim looks, in this order, for entries that this consumer owns but this object does not hold (from before a restart, or
delivered into a lost connection), for entries that were given back, for entries that were not renewed for
`reclaim_idle_s`, and for new ones. Lending an entry out again adds one to its delivery count; renewing does not.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from services.clock import now_s
from services.streams import names, scripts
from services.streams.redis_connection import CommandRefused, RedisConnection
from services.streams.stream import Claim, IssueGap, Stream, StreamDepth

ISSUED = "issued"
"""The counter of the run's training groups."""
LONGEST_SILENCE_S = 1.0  # a claim that waits for new entries looks this often for released and idle ones


class RedisStream:
    """One consumer of one stream. An entry that its process lost goes to a consumer again after the idle time.

    Calls of `claim` on one object take turns; all other methods may run in any thread at the same time.
    """

    def __init__(self, connection: RedisConnection, run: str, name: str, consumer: str, reclaim_idle_s: float) -> None:
        self.name = name
        self.consumer = consumer
        self.key = f"ratchet:{run}:{name}"
        self._connection = connection
        self._idle_ms = max(1, int(reclaim_idle_s * 1000))
        self._next_idle_look_s = 0.0
        self._held: set[str] = set()
        self._claiming = threading.Lock()

    def claim(self, count: int, block_s: float) -> list[Claim]:
        end_s = now_s() + block_s
        with self._claiming:
            while True:
                claims = self._lend(count)
                remaining_s = end_s - now_s()
                if not claims and remaining_s > 0:
                    claims = self._await_new(count, min(remaining_s, LONGEST_SILENCE_S))
                self._held.update(claim.entry_id for claim in claims)
                if claims or remaining_s <= 0:
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
        args = [value for claim, payload in results for value in (claim.entry_id, payload)]
        owed = self._connection.run_script(scripts.HAND_OVER, [self.key, to.key], args)
        self._held.difference_update(claim.entry_id for claim, _ in results)
        return [bool(one) for one in owed]

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

    def depth(self) -> StreamDepth:
        entries, pending, oldest_ms = self._run(scripts.DEPTH)
        return StreamDepth(max(0, entries - pending), pending, oldest_age_s=oldest_ms / 1000)

    def peek(self, count: int) -> list[bytes]:
        rows = self._connection.execute("XRANGE", self.key, "-", "+", "COUNT", count)
        return [fields[1] for _, fields in rows or ()]  # a count of 0 is answered with null

    def _lend(self, count: int) -> list[Claim]:
        idle_ms = 0
        if now_s() >= self._next_idle_look_s:
            idle_ms = self._idle_ms
            self._next_idle_look_s = now_s() + self._idle_ms / 4000
        # A tuple first: other threads let go of claims at the same time.
        lent = self._run(scripts.CLAIM, self.consumer, count, idle_ms, *tuple(self._held))
        return [Claim(entry_id.decode(), payload, deliveries) for entry_id, payload, deliveries in lent]

    def _await_new(self, count: int, block_s: float) -> list[Claim]:
        block_ms = max(1, int(block_s * 1000))  # 0 would wait forever
        group = ("GROUP", "workers", self.consumer, "COUNT", count, "BLOCK", block_ms)
        try:
            answer = self._connection.execute("XREADGROUP", *group, "STREAMS", self.key, ">", block_s=block_s)
        except CommandRefused as refusal:
            if refusal.code not in ("NOGROUP", "UNBLOCKED"):
                raise
            return []  # the stream was deleted under the waiting reader; the next claim makes the consumer group again
        return [Claim(entry_id.decode(), fields[1], 1) for entry_id, fields in (answer[0][1] if answer else ())]

    def _run(self, script: str, *args: str | int) -> Any:
        return self._connection.run_script(script, [self.key], args)


class RedisIssueLog:
    """Numbered entries of one stream. Their count is a key of its own, and both change in one step."""

    def __init__(self, connection: RedisConnection, stream: RedisStream, counter: str = ISSUED) -> None:
        self._connection = connection
        self._stream = stream
        self._counter_key = f"{stream.key}:{counter}"

    def issue(self, sequence_number: int, payload: bytes) -> bool:
        return self._count(sequence_number, payload)

    def skip(self, sequence_number: int) -> None:
        self._count(sequence_number)

    def issue_again(self, payload: bytes) -> None:
        self._connection.run_script(scripts.APPEND, [self._stream.key], [payload])

    def _count(self, sequence_number: int, *payload: bytes) -> bool:
        keys = [self._stream.key, self._counter_key]
        outcome, count = self._connection.run_script(scripts.ISSUE, keys, [sequence_number, *payload])
        if outcome < 0:
            raise IssueGap(self._stream.key, sequence_number=sequence_number, issued_count=count)
        return bool(outcome)

    def issued_count(self) -> int:
        return int(self._connection.execute("GET", self._counter_key) or 0)


def empty_queues(connection: RedisConnection, run: str) -> None:
    """Delete every entry of the run's queues, and the count of issued groups: the run begins with nothing. Nobody may use
    them meanwhile. What else is kept of the run stays, such as the number of its starts."""
    keys = [f"ratchet:{run}:{name}" for name in names.ALL]
    connection.execute("DEL", *keys, f"ratchet:{run}:{names.PROMPTS}:{ISSUED}")


def _ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.entry_id for claim in claims]
