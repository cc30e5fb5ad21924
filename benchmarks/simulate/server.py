"""A Redis server in memory for the control plane of the weights: it executes what `Membership` asks for, counts, and takes
its time.

It works on one command after the other, as Redis does. What a command takes is assumed: OP_S, and more for what it touches
and moves; `redis-benchmark` on one core gives 60,000 to 150,000 plain commands a second, a script about half of that.
"""

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmarks.simulate.virtual import Blocked, VirtualLoop

OP_S = 15e-6
ELEMENT_S = 1e-6  # for each entry or lease that is touched
BYTE_S = 1e-9
ROUND_TRIP_S = 200e-6
SAME_S = 1e-6  # a loop calls back within its clock's resolution, also before
NODE = 100
"""Entries of a node of a stream (stream-node-max-entries): trimming by `MAXLEN ~` removes whole nodes."""
KINDS = {
    "ZRANGEBYSCORE": "live",
    "ZADD": "register",
    "ZSCORE": "standing",
    "math.max": "count_above",
    "'EXISTS'": "offer",
    "'XADD'": "append",
    "'XRANGE'": "is_there",
}
"""A word of each script of services/weights/membership.py -> what it does."""


@dataclass
class Traffic:
    """What a server was asked for."""

    operations: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    busy_s: float = 0.0
    unread: int = 0
    """Confirmations that were trimmed before the learner had read them."""


@dataclass
class _Stream:
    first: int = 1  # number of the first entry that is kept
    entries: list[list[bytes]] = field(default_factory=list)
    read: int = 0  # the highest number that anybody has read
    readers: "list[asyncio.Future[None]]" = field(default_factory=list)


class Server:
    """The state and the counts."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.traffic = Traffic()
        self._free_s = 0.0
        self._values: dict[str, Any] = {}
        self._leases: dict[bytes, tuple[float, bytes]] = {}  # replica -> when its lease ends, and the last one
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)

    def takes(self, kind: str, elements: int, bytes_in: int, bytes_out: int) -> None:
        """Count a command; the caller owes the time until its answer."""
        traffic, now_s = self.traffic, self.loop.time()
        work_s = OP_S + elements * ELEMENT_S + (bytes_in + bytes_out) * BYTE_S
        self._free_s = max(self._free_s, now_s) + work_s
        traffic.operations[kind] += 1
        traffic.bytes_in += bytes_in
        traffic.bytes_out += bytes_out
        traffic.busy_s += work_s
        self.loop.owe(self._free_s - now_s + ROUND_TRIP_S)

    def script(self, script: str, keys: list[str], args: list[Any]) -> Any:
        kind = next(kind for word, kind in KINDS.items() if word in script)
        found, elements = getattr(self, f"_{kind}")(keys, args)
        out = sum(map(_size, found)) if isinstance(found, list) else _size(found)
        self.takes(kind, elements, sum(map(_size, args)), out)
        return found

    def _register(self, _: list[str], args: list[Any]) -> tuple[Any, int]:
        self._leases[args[0].encode()] = (self.loop.time() + args[1] / 1000, args[2])
        return 1, 2

    def leave(self, replica_id: str) -> None:
        end_s, lease = self._leases[replica_id.encode()]
        self._leases[replica_id.encode()] = (min(end_s, self.loop.time()), lease)
        self.takes("leave", 1, len(replica_id), 1)

    def _live(self, *_: Any) -> tuple[Any, int]:
        now_s = self.loop.time()
        live = [part for name, (end_s, lease) in self._leases.items() if end_s >= now_s for part in (name, lease)]
        return live, len(live)

    def _standing(self, _: list[str], ids: list[Any]) -> tuple[Any, int]:
        found: list[Any] = []
        for name in ids:
            end_s, lease = self._leases.get(name.encode(), (-1.0, None))
            left_s = end_s - self.loop.time()
            found += [int(left_s * 1000) + 1 if left_s >= 0 else 0, lease]
        return found, 2 * len(ids)

    def _count_above(self, keys: list[str], args: list[Any]) -> tuple[Any, int]:
        self._values[keys[0]] = max(self._values.get(keys[0], 0), int(args[0])) + 1
        return self._values[keys[0]], 1

    def _offer(self, keys: list[str], args: list[Any]) -> tuple[Any, int]:
        before = int(keys[0] in self._values)
        self._values[keys[0]] = args[0]
        return before, 1

    def get(self, key: str) -> bytes | None:
        found: bytes | None = self._values.get(key)
        self.takes("offered", 1, len(key), _size(found))
        return found

    def _is_there(self, keys: list[str], args: list[Any]) -> tuple[Any, int]:
        stream = self._streams[keys[0]]
        return int(stream.first <= _number(args[0]) < stream.first + len(stream.entries)), 1

    def _append(self, keys: list[str], args: list[Any]) -> tuple[Any, int]:
        stream, (most, kind, body) = self._streams[keys[0]], args
        stream.entries.append([b"kind", kind.encode(), b"body", body])
        last = stream.first + len(stream.entries) - 1
        while len(stream.entries) - (node := NODE - (stream.first - 1) % NODE) >= most:
            if keys[0].endswith(":confirmations"):
                self.traffic.unread += sum(stream.first + place > stream.read for place in range(node))
            del stream.entries[:node]
            stream.first += node
        for reader in stream.readers:
            _wake(reader)
        stream.readers.clear()
        return b"%d-0" % last, 1

    def last(self, key: str) -> Any:
        stream = self._streams[key]
        self.takes("last", 1, len(key), 0)
        return [(b"%d-0" % (stream.first + len(stream.entries) - 1), stream.entries[-1])] if stream.entries else []

    def after(self, key: str, seen: bytes, count: int) -> Any:
        """Entries after this one; None: there are none."""
        stream = self._streams[key]
        begin = max(0, _number(seen) + 1 - stream.first)
        entries = stream.entries[begin : begin + count]
        if not entries:
            return None
        numbered = [(b"%d-0" % (stream.first + begin + place), entry) for place, entry in enumerate(entries)]
        stream.read = max(stream.read, stream.first + begin + len(entries) - 1)
        self.takes("read", len(entries), len(key), sum(sum(map(len, entry)) for entry in entries))
        return [(key, numbered)]

    def wait(self, key: str, until_s: float) -> "asyncio.Future[None]":
        """Done at the next entry, or then."""
        reader: asyncio.Future[None] = self.loop.create_future()
        self._streams[key].readers.append(reader)
        self.loop.call_at(until_s, _wake, reader)
        return reader


class Connection:
    """The part of RedisConnection that the control plane uses; by default a replica's, which blocks by raising Blocked."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._until_s: float | None = None

    def run_script(self, script: str, keys: list[str], args: list[Any] | None = None) -> Any:
        return self.server.script(script, keys, list(args or []))

    def execute(self, command: str, *args: Any, block_s: float = 0.0) -> Any:
        if command == "XREAD":
            return self._read(args[5], args[6], args[1], block_s)
        if command == "XREVRANGE":
            return self.server.last(args[0])
        if command == "GET":
            return self.server.get(args[0])
        if command == "ZREM":
            return self.server.leave(args[1])
        raise ValueError(f"the control plane does not use {command}")

    def _read(self, key: str, seen: bytes, count: int, block_s: float) -> Any:
        found = self.server.after(key, seen, count)
        now_s = self.server.loop.time()
        if self._until_s is None and not found:
            self.server.takes("read", 0, len(key), 0)
            self._until_s = now_s + block_s
        if found or (self._until_s is not None and now_s >= self._until_s - SAME_S):
            self._until_s = None
            return found
        raise Blocked(self.server.wait(key, self._until_s or now_s))


class LearnerConnection(Connection):
    """The learner's: while it waits, everybody else goes on."""

    HANDLING_S = 20e-6
    """For each message or lease that it decodes and takes in."""

    def run_script(self, script: str, keys: list[str], args: list[Any] | None = None) -> Any:
        found = super().run_script(script, keys, args)
        self._pay(len(found) / 2 if isinstance(found, list) else 0)
        return found

    def execute(self, command: str, *args: Any, block_s: float = 0.0) -> Any:
        while True:
            try:
                found = super().execute(command, *args, block_s=block_s)
            except Blocked as blocked:
                self._pay(0)
                self.server.loop.run_until_complete(blocked.until)
                continue
            self._pay(len(found[0][1]) if command == "XREAD" and found else 0)
            return found

    def _pay(self, taken_in: float) -> None:
        self.server.loop.owe(taken_in * self.HANDLING_S)
        self.server.loop.pay()


def _wake(reader: "asyncio.Future[None]") -> None:
    if not reader.done():
        reader.set_result(None)


def _number(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else 0 if value is None else 8
