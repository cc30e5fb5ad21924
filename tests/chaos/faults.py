"""What may happen to a run: for each kind, what is done, for how long, and how it is mended."""

import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.run.checkpoint_names import checkpoints_in
from services.run.folder import RunFolder
from services.streams.names import PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from tests.chaos.clocks import NOTICED_S, library
from tests.chaos.instants import INSTANTS, order, room_of
from tests.chaos.networks import Network
from tests.chaos.processes import ForkedService
from tests.chaos.wires import Wire

SERVICES = ("learner", "rollout-0", "rollout-1", "verifier")
REDIS = "redis"
"""Whose clock is Redis's."""
STREAMS = (PROMPTS, TRAJECTORIES, SCORED)
INTERNAL_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
GARBAGE = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"scores": 7'
)
DEAD_HOST = "127.0.0.1", 1


class Victim(Protocol):
    """A run to which faults are done."""

    name: str
    folder: RunFolder
    services: dict[str, ForkedService]
    wires: dict[str, Wire]
    """Service -> its wire to Redis."""
    scoring: Wire
    """From the verifier's worker to the scoring service."""

    network: Network | None
    """Between the learner and the replicas; None: they share this machine's."""

    def jump(self, service: str, seconds: float) -> None:
        """Move the wall clock of a service, or of REDIS, for good."""

    def redis(self) -> RedisConnection:
        """A connection of the harness's own, by no wire."""

    def signal_redis(self, number: signal.Signals) -> None:
        """Send this to the Redis server."""

    @property
    def disk(self) -> Path | None:
        """A small disk that holds the run's folder; None: it is on a large one."""


def _nothing(_: Victim) -> None: ...


def _always(_: Victim) -> bool:
    return True


@dataclass(frozen=True)
class Fault:
    """One thing that happens."""

    kind: str
    detail: str
    do: Callable[[Victim], None]
    mend: Callable[[Victim], None] = _nothing
    lasts_s: float = 0.0
    has_happened: Callable[[Victim], bool] = _always
    """Looked at until it is true, for what happens at an instant."""


def killed(service: str) -> Fault:
    return Fault(f"{room_of(service)} killed", service, lambda run: run.services[service].signal(signal.SIGKILL))


def _suspended(service: str, lasts_s: float) -> Fault:
    return Fault(
        "",
        f"{service} for {lasts_s:.1f} s",
        lambda run: run.services[service].signal(signal.SIGSTOP),
        lambda run: run.services[service].signal(signal.SIGCONT),
        lasts_s,
    )


def _at_an_instant(service: str, instant: str) -> Fault:
    def where(run: Victim) -> Path:
        return order(run.folder.path, service, instant)

    return Fault(
        "",
        f"{service} {instant}",
        lambda run: where(run).touch(),
        lambda run: where(run).unlink(missing_ok=True),
        has_happened=lambda run: not where(run).exists(),
    )


def _redis_signalled(number: signal.Signals, lasts_s: float = 0.0) -> Fault:
    def mend(run: Victim) -> None:
        if lasts_s:
            run.signal_redis(signal.SIGCONT)

    return Fault("", f"{lasts_s:.1f} s" if lasts_s else "", lambda run: run.signal_redis(number), mend, lasts_s)


def _asked_of_redis(lasts_s: float, do: tuple[str | int, ...], mend: tuple[str | int, ...] = ()) -> Fault:
    def undo(run: Victim) -> None:
        if mend:
            run.redis().execute(*mend)

    return Fault("", f"{lasts_s:.1f} s" if lasts_s else "", lambda run: _tell(run, do), undo, lasts_s)


def _tell(run: Victim, command: tuple[str | int, ...]) -> None:
    run.redis().execute(*command)


def _cut_from_redis(service: str, lasts_s: float) -> Fault:
    return _wire_cut(f"{service} for {lasts_s:.1f} s", lambda run: run.wires[service], lasts_s)


def _slowed_to_redis(service: str, delay_s: float, lasts_s: float) -> Fault:
    return _wire_slowed(service, lambda run: run.wires[service], delay_s, lasts_s)


def _wire_cut(detail: str, wire: Callable[[Victim], Wire], lasts_s: float) -> Fault:
    return Fault("", detail, lambda run: wire(run).cut(), lambda run: wire(run).mend(), lasts_s)


def _wire_slowed(who: str, wire: Callable[[Victim], Wire], delay_s: float, lasts_s: float) -> Fault:
    return Fault(
        "",
        f"{who} by {delay_s * 1000:.0f} ms for {lasts_s:.1f} s",
        lambda run: wire(run).slow(delay_s),
        lambda run: wire(run).mend(),
        lasts_s,
    )


def _weights_cut(pair: tuple[str, str], lasts_s: float) -> Fault:
    """Gloo, its store and the weight server alike."""

    def do(run: Victim) -> None:
        assert run.network is not None
        run.network.cut(*pair)

    return Fault("", f"{' and '.join(pair)} for {lasts_s:.1f} s", do, lambda run: _mend_link(run, pair), lasts_s)


def _weights_slowed(pair: tuple[str, str], delay_s: float, lasts_s: float) -> Fault:
    def do(run: Victim) -> None:
        assert run.network is not None
        run.network.slow(*pair, delay_s)

    detail = f"{' and '.join(pair)} by {delay_s * 1000:.0f} ms for {lasts_s:.1f} s"
    return Fault("", detail, do, lambda run: _mend_link(run, pair), lasts_s)


def _mend_link(run: Victim, pair: tuple[str, str]) -> None:
    assert run.network is not None
    run.network.mend(*pair)


def _clock_jump(services: Sequence[str], seconds: float) -> Fault:
    """Several at once: they are on one host. It stays as it is; leases and idle claims have to get over it."""

    def do(run: Victim) -> None:
        for service in services:
            run.jump(service, seconds)

    return Fault("", f"{', '.join(services)} by {seconds:+.0f} s", do, lasts_s=2.0 * NOTICED_S)


def _scoring_cut(lasts_s: float) -> Fault:
    return _wire_cut(f"{lasts_s:.1f} s", lambda run: run.scoring, lasts_s)


def _scoring_slowed(delay_s: float, lasts_s: float) -> Fault:
    return _wire_slowed("the verifier", lambda run: run.scoring, delay_s, lasts_s)


def _scoring(canned: bytes, lasts_s: float) -> Fault:
    return Fault(
        "", f"{lasts_s:.1f} s", lambda run: run.scoring.answer(canned), lambda run: run.scoring.mend(), lasts_s
    )


def _disk_full(lasts_s: float) -> Fault:
    def fill(run: Victim) -> None:
        assert run.disk is not None
        with (run.disk / "filler").open("wb", buffering=0) as filler:
            for size in (2**20, 4096, 1):
                try:
                    while True:
                        filler.write(b"x" * size)
                except OSError:
                    continue

    def free(run: Victim) -> None:
        assert run.disk is not None
        (run.disk / "filler").unlink(missing_ok=True)

    return Fault("", f"{lasts_s:.1f} s", fill, free, lasts_s)


def _damaged_checkpoint(how: str, share: float) -> Fault:
    """The newest checkpoint is damaged and the learner killed. share: of the files by size, which one."""

    def do(run: Victim) -> None:
        checkpoints = checkpoints_in(run.folder.checkpoints)
        if len(checkpoints) > 1:
            files = sorted(file for file in checkpoints[-1].rglob("*") if file.is_file() and file.stat().st_size)
            file = files[int(share * len(files))]
            held = file.read_bytes()
            middle = len(held) // 2
            changed = (
                held[:middle] if how == "cut short" else held[:middle] + bytes([held[middle] ^ 1]) + held[middle + 1 :]
            )
            file.write_bytes(changed)
        run.services["learner"].signal(signal.SIGKILL)

    return Fault("", f"a file {how}", do)


def doubled(stream_name: str, count: int) -> Fault:
    def do(run: Victim) -> None:
        stream = RedisStream(run.redis(), run.name, stream_name, "chaos", 1e8)
        for payload in stream.peek(count):
            RedisIssueLog(run.redis(), stream).issue_again(payload)

    return Fault("entries doubled", f"up to {count} of {stream_name}", do)


def _replaced(stream_name: str, count: int, how: str) -> Fault:
    """Entries lose their bytes, or are gone altogether."""

    def do(run: Victim) -> None:
        connection = run.redis()
        stream = RedisStream(connection, run.name, stream_name, "chaos", 1e8)
        for entry, _ in zip(stream.entries(), range(count), strict=False):
            connection.execute("XDEL", stream.key, entry.entry_id)
            if how == "cut short":
                RedisIssueLog(connection, stream).issue_again(entry.payload[: len(entry.payload) // 2])
            elif how == "noise":
                RedisIssueLog(connection, stream).issue_again(random.Random(count).randbytes(len(entry.payload)))

    return Fault("", f"up to {count} of {stream_name}, {how}", do)


def _service(rng: random.Random) -> str:
    return rng.choice(SERVICES)


def _instant(rng: random.Random) -> Fault:
    service = rng.choice(("learner", "learner", *SERVICES))
    return _at_an_instant(service, rng.choice(INSTANTS[room_of(service)]))


def _pair(rng: random.Random) -> tuple[str, str]:
    return rng.choice((("learner", "rollout-0"), ("learner", "rollout-1"), ("rollout-0", "rollout-1")))


def _jump(rng: random.Random) -> Fault:
    one = (rng.choice(SERVICES),)
    redis = ((REDIS,), (REDIS, *SERVICES)) if library() is not None else ()
    return _clock_jump(rng.choice((*redis, SERVICES, one)), rng.choice((-1, 1)) * rng.choice((2.0, 30.0, 3600.0)))


def _lasts(rng: random.Random) -> float:
    return rng.uniform(1.0, 8.0)


KINDS: dict[str, Callable[[random.Random], Fault]] = {
    "learner killed": lambda rng: killed("learner"),
    "replica killed": lambda rng: killed(f"rollout-{rng.randrange(2)}"),
    "verifier killed": lambda rng: killed("verifier"),
    "killed at an instant": _instant,
    "learner suspended": lambda rng: _suspended("learner", _lasts(rng)),
    "replica suspended": lambda rng: _suspended(f"rollout-{rng.randrange(2)}", _lasts(rng)),
    "verifier suspended": lambda rng: _suspended("verifier", _lasts(rng)),
    "Redis killed": lambda rng: _redis_signalled(signal.SIGKILL),
    "Redis suspended": lambda rng: _redis_signalled(signal.SIGSTOP, _lasts(rng)),
    "Redis emptied": lambda rng: _asked_of_redis(0.0, ("FLUSHALL",)),
    "Redis full": lambda rng: _asked_of_redis(
        _lasts(rng), ("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)
    ),
    "Redis read-only": lambda rng: _asked_of_redis(_lasts(rng), ("REPLICAOF", *DEAD_HOST), ("REPLICAOF", "NO", "ONE")),
    "cut from Redis": lambda rng: _cut_from_redis(_service(rng), _lasts(rng)),
    "slowed to Redis": lambda rng: _slowed_to_redis(_service(rng), rng.uniform(0.05, 0.5), _lasts(rng)),
    "weights cut": lambda rng: _weights_cut(_pair(rng), _lasts(rng)),
    "weights slowed": lambda rng: _weights_slowed(_pair(rng), rng.uniform(0.02, 0.2), _lasts(rng)),
    "scoring cut": lambda rng: _scoring_cut(_lasts(rng)),
    "scoring slowed": lambda rng: _scoring_slowed(rng.uniform(0.05, 0.5), _lasts(rng)),
    "scoring answers 500": lambda rng: _scoring(INTERNAL_ERROR, _lasts(rng)),
    "scoring hangs": lambda rng: _scoring(b"", _lasts(rng)),
    "scoring answers garbage": lambda rng: _scoring(GARBAGE, _lasts(rng)),
    "disk full": lambda rng: _disk_full(rng.uniform(1.0, 4.0)),
    "checkpoint damaged": lambda rng: _damaged_checkpoint(
        rng.choice(("cut short", "with a bit flipped")), rng.random()
    ),
    "entries doubled": lambda rng: doubled(rng.choice(STREAMS), rng.randint(1, 8)),
    "entries corrupted": lambda rng: _replaced(
        rng.choice(STREAMS), rng.randint(1, 4), rng.choice(("cut short", "noise"))
    ),
    "entries deleted": lambda rng: _replaced(rng.choice(STREAMS), rng.randint(1, 8), "gone"),
    "clock jump": _jump,
}
NEED_NETWORK = {"weights cut", "weights slowed"}
"""Kinds that need namespaces."""
BY_HAND = {"disk full"}
"""Kinds after which `ratchet up` ends by design, and somebody calls it again."""


def draw(kind: str, rng: random.Random) -> Fault:
    """A fault of this kind, with its victim and its length at random."""
    drawn = KINDS[kind](rng)
    return Fault(kind, drawn.detail, drawn.do, drawn.mend, drawn.lasts_s, drawn.has_happened)
