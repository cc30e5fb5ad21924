"""The control plane of the weights: which replicas are in the process group, since when, and what they confirm.

Replicas hold leases. The learner announces generations (`Rendezvous`) and policy versions (`WeightManifest`) on one
stream, and replicas confirm on another. Both are read from the end, so a reader has to start before it registers. A
repeated message is harmless, because each names its generation and version. Beside them stands the learner's offer: where the
newest version can be fetched, and who is to fetch it.

All of it is written on a server whose memory is full, too: a run that waits for room must not lose its replicas. A server that
was emptied has lost all of this. Nobody needs it back: leases, offer and what is being announced are written
again, and the learner knows its last generation.
"""

import logging
from collections.abc import Iterator, Mapping

from services.clock import now_s
from services.errors import WireError
from services.streams.redis_connection import RedisConnection
from services.streams.scripts import EVEN_IF_FULL
from services.wire.codec import decode, encode
from services.wire.membership import Confirmation, Lease
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer

log = logging.getLogger("ratchet")

_KEPT_MESSAGES = 256
_KEPT_CONFIRMATIONS = 4096
"""A fleet answers at once, several times a sync: what is cut off before the learner has read it looks like a silent member."""
LOOK_BACK_EVERY_S = 5.0
"""How often a reader without messages looks whether the server numbers them from before the last one it read."""

# The server's clock decides which leases are live, so that hosts need not agree on the time.
_REGISTER = (
    EVEN_IF_FULL
    + """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
"""
)
# A lease that ends later than one that is taken now was taken before the server's clock was set back: it ends a lease from now,
# unless it is renewed. pcall: on a server without memory, or without the right to write, it waits.
_LIVE = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local latest = now_ms + tonumber(ARGV[1])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', latest), '+inf')) do
  redis.pcall('ZADD', KEYS[1], latest, id)
end
local leases = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now_ms, '+inf')) do
  leases[#leases + 1] = id
  leases[#leases + 1] = redis.call('HGET', KEYS[2], id)
end
return leases
"""
# -> {milliseconds left (0: it has ended), lease, ...}
_STANDING = """
local now, found = redis.call('TIME'), {}
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
for i, id in ipairs(ARGV) do
  local ends = redis.call('ZSCORE', KEYS[1], id)
  found[2 * i - 1] = math.max(0, (tonumber(ends or 0)) - now_ms + 1)
  found[2 * i] = redis.call('HGET', KEYS[2], id)
end
return found
"""
_ALL = "return redis.call('HGETALL', KEYS[1])"
_COUNT = EVEN_IF_FULL + "return redis.call('INCR', KEYS[1])"  # a repeat only skips a number
_IS_THERE = "return #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])"
_COUNT_ABOVE = (
    EVEN_IF_FULL
    + """
local next = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])) + 1
redis.call('SET', KEYS[1], next)
return next
"""
)
_OFFER = (
    EVEN_IF_FULL
    + """
local before = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return before
"""
)
_APPEND = (
    EVEN_IF_FULL + "return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'kind', ARGV[2], 'body', ARGV[3])"
)


class Membership:
    """One end of the control plane. Each method is one command to the server."""

    def __init__(self, connection: RedisConnection, run: str, lease_s: float) -> None:
        self._connection = connection
        self._lease_ms = int(lease_s * 1000)
        self._leases = f"ratchet:{run}:leases"  # replica -> when its lease ends, in the server's milliseconds
        self._facts = f"ratchet:{run}:replicas"  # replica -> its last Lease
        self._generation = f"ratchet:{run}:pg_generation"
        self._attempts = f"ratchet:{run}:attempts"
        self._announcements = f"ratchet:{run}:weights"
        self._confirmations = f"ratchet:{run}:confirmations"
        self._offer = f"ratchet:{run}:weight_offer"
        self._unreadable: set[bytes] = set()  # replicas whose lease was warned about

    def register(self, lease: Lease) -> None:
        """Take or renew a lease."""
        args: list[str | bytes | int | float] = [lease.replica_id, self._lease_ms, encode(lease)]
        self._connection.run_script(_REGISTER, [self._leases, self._facts], args)

    def leave(self, replica_id: str) -> None:
        """Give the lease up."""
        self._connection.execute("ZREM", self._leases, replica_id)

    def live(self) -> dict[str, Lease]:
        """The leases that have not run out, by replica id."""
        leases = self._readable(self._connection.run_script(_LIVE, [self._leases, self._facts], [self._lease_ms]))
        return {lease.replica_id: lease for lease in leases}

    def lost(self, incarnations: Mapping[str, str], *, left_s: float = 0.0) -> set[str]:
        """Which of these replicas have left, let their lease run out, or were started again; and those whose lease ends within
        left_s seconds. incarnations: replica_id -> incarnation. One of which the server knows nothing is not among them: the
        server was emptied, and it registers again."""
        ids = list(incarnations)
        found = self._connection.run_script(_STANDING, [self._leases, self._facts], ids)
        lost = set()
        for replica_id, left_ms, raw in zip(ids, found[::2], found[1::2], strict=True):
            known = self._readable([replica_id.encode(), raw]) if raw else []
            if known and (left_ms <= left_s * 1000 or known[0].incarnation != incarnations[replica_id]):
                lost.add(replica_id)
        return lost

    def last_leases(self) -> list[Lease]:
        """The last lease of every replica of the run, live or not."""
        return self._readable(self._connection.run_script(_ALL, [self._facts]))

    def _readable(self, ids_and_leases: list[bytes]) -> list[Lease]:
        """The leases that can be decoded.

        A replica of another version is named once in the log and left out: it must not end a run that has others.
        """
        leases = []
        for replica_id, raw in zip(ids_and_leases[::2], ids_and_leases[1::2], strict=True):
            try:
                leases.append(decode(raw, Lease))
            except WireError as fault:
                if replica_id not in self._unreadable:
                    log.warning("the lease of replica %s is ignored: %s", replica_id.decode(errors="replace"), fault)
                self._unreadable.add(replica_id)
        return leases

    def next_generation(self, above: int = 0) -> int:
        """A number that no earlier generation of this run had. above: the highest that the caller knows of; the server may have
        lost its own."""
        return int(self._connection.run_script(_COUNT_ABOVE, [self._generation], [above]))

    def offer(self, offer: WeightOffer) -> bool:
        """Write the offer; whether the server still had one."""
        return bool(self._connection.run_script(_OFFER, [self._offer], [encode(offer)]))

    def offered(self) -> WeightOffer | None:
        """The last offer, also one of a learner that has ended; None before the first. Raises WireError."""
        raw = self._connection.execute("GET", self._offer)
        return decode(raw, WeightOffer) if raw else None

    def next_attempt(self) -> int:
        """A number that no earlier start of this run's learner had."""
        return int(self._connection.run_script(_COUNT, [self._attempts]))

    def announce(self, message: Rendezvous | WeightManifest) -> bytes:
        """Tell every replica. Returns by what `is_announced` knows the message."""
        kind = "rendezvous" if isinstance(message, Rendezvous) else "manifest"
        args: list[str | bytes | int | float] = [_KEPT_MESSAGES, kind, encode(message)]
        announced: bytes = self._connection.run_script(_APPEND, [self._announcements], args)
        return announced

    def is_announced(self, announced: bytes) -> bool:
        """Whether the server still has this announcement, so that replicas which have not read it yet will."""
        return bool(self._connection.run_script(_IS_THERE, [self._announcements], [announced]))

    def confirm(self, confirmation: Confirmation) -> None:
        """Tell the learner."""
        args: list[str | bytes | int | float] = [_KEPT_CONFIRMATIONS, "confirmation", encode(confirmation)]
        self._connection.run_script(_APPEND, [self._confirmations], args)

    def announcements(self) -> "MessageReader":
        """A reader of what the learner announces from now on."""
        return MessageReader(self._connection, self._announcements)

    def confirmations(self) -> "MessageReader":
        """A reader of what the replicas confirm from now on."""
        return MessageReader(self._connection, self._confirmations)


class MessageReader:
    """Reads one stream of messages, from where the stream ended when the reader was made."""

    def __init__(self, connection: RedisConnection, key: str) -> None:
        self._connection = connection
        self._key = key
        last = connection.execute("XREVRANGE", key, "+", "-", "COUNT", 1)
        self._seen: bytes = last[0][0] if last else b"0-0"
        self._next_look_s = now_s() + LOOK_BACK_EVERY_S

    def read(self, block_s: float) -> Iterator[Rendezvous | WeightManifest | Confirmation]:
        """Messages since the last read, or none if none came in block_s seconds.

        Waits for: a message.
        Until: block_s; callers repeat it until their own deadline.
        Ended by: the first message; block_s; the server staying away (StreamError).
        Metric: ratchet_waiting of the publisher or the follower that reads.
        """
        arguments = (
            "XREAD",
            "COUNT",
            _KEPT_MESSAGES,
            "BLOCK",
            max(1, int(block_s * 1000)),
            "STREAMS",
            self._key,
            self._seen,
        )
        for _, entries in self._connection.execute(*arguments, block_s=block_s) or ():
            self._next_look_s = now_s() + LOOK_BACK_EVERY_S
            for entry_id, fields in entries:
                self._seen = entry_id
                yield _decode_message(dict(zip(fields[::2], fields[1::2], strict=True)))
        if now_s() >= self._next_look_s:
            self._next_look_s = now_s() + LOOK_BACK_EVERY_S
            self._look_back()

    def _look_back(self) -> None:
        """Begin with the first message, where the newest has a lower number than the last one read: a server numbers them by its
        clock, and this one was emptied, or replaced by another, and its clock is behind."""
        last = self._connection.execute("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        if last and _number(last[0][0]) < _number(self._seen):
            self._seen = b"0-0"


def _number(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-")))


def _decode_message(fields: dict[bytes, bytes]) -> Rendezvous | WeightManifest | Confirmation:
    kinds: dict[bytes, type[Rendezvous | WeightManifest | Confirmation]] = {
        b"rendezvous": Rendezvous,
        b"manifest": WeightManifest,
        b"confirmation": Confirmation,
    }
    return decode(fields[b"body"], kinds[fields[b"kind"]])
