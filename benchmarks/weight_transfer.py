"""What it takes to bring a version to receivers in other processes: bare bytes, whole buckets, what changed, and by HTTP.

Part of `python -m benchmarks.weights`. All ways take turns in one run, over loopback: bytes cost next to nothing there, so that
what the ways cost beside them shows. A version counts until every receiver has proved its bytes; one that goes out as what
changed also from before that is put together.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from learner.publish.changes import sent
from learner.publish.kept_buckets import KeptBuckets
from learner.publish.snapshot import Changes, Snapshot
from learner.publish.weight_server import WeightServer
from rollout.weights.receiver import WeightReceiver
from services.clock import Deadline
from services.errors import WeightSyncError
from services.weights.buckets import digest, sealed
from services.weights.collective import form_collective
from services.weights.delta import encode, unit_bytes
from services.weights.meeting import RendezvousStore
from services.weights.process_group import ProcessGroupChannel
from services.weights.side_stream import Mark, SideStream
from services.wire.weights import Bucket, Delta, Gap, Rendezvous, WeightManifest, WeightOffer, WeightSource
from tests.forking import forking

CPU = torch.device("cpu")
WAIT_S = 120.0
LONG = timedelta(seconds=WAIT_S)
NO_BOUND = Gap(0, 0, 0)
SHARES = (0.015, 0.15)
"""Shares of changed values for which deltas are timed: about those of learning rates of 1e-6 and 1e-5."""


class Receivers:
    """Receivers as an engine's worker has them, each in a process."""

    def __init__(self, count: int) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(count):
            ours, theirs = forking().Pipe()
            self._pipes.append(ours)
            self._processes.append(forking().Process(target=_receive, args=(theirs,), daemon=True))
            self._processes[-1].start()

    def tell(self, *what: Any) -> None:
        """Tell every one of them; what: a name, then the receiver's number is put in, then the rest."""
        for number, pipe in enumerate(self._pipes):
            pipe.send((what[0], number + 1, *what[1:]))

    def all_said(self) -> None:
        """Return once every one has done what it was told.

        Waits for: the receivers.
        Until: 120 s (WAIT_S).
        Ended by: the last word, or that time (WeightSyncError).
        Metric: none; it is a benchmark.
        """
        for pipe in self._pipes:
            if not pipe.poll(WAIT_S):
                raise WeightSyncError("a receiver says nothing")
            if (said := pipe.recv()) != "done":
                raise WeightSyncError(said)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _receive(pipe: Connection) -> None:
    torch.set_num_threads(1)
    receiver, bare, flats = WeightReceiver(CPU), None, list[Tensor]()
    while True:
        verb, rank, *rest = pipe.recv()
        if verb == "join":
            receiver.join(rest[0], rank)
        elif verb == "stage":
            receiver.stage(rest[0], WAIT_S, rest[1])
        elif verb == "meet bare":
            meeting, sizes = rest
            store = PrefixStore("bare", TCPStore("127.0.0.1", meeting.port, wait_for_workers=False))
            bare = form_collective(meeting, rank, store, LONG, CPU)
            flats = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
        elif bare is not None:
            for flat in flats:
                bare.broadcast(flat, LONG)
        if verb in ("join", "stage"):
            while receiver.progress().state == "busy":
                time.sleep(0.001)
            if receiver.progress().state != "ready":
                pipe.send(receiver.progress().fault)
                continue
        if verb == "stage":
            receiver.take(rest[0].policy_version)
            receiver.give_back()
        pipe.send("done")


class Version:
    """One of two versions that take turns."""

    def __init__(self, layout: Sequence[Bucket], flat: Sequence[Tensor]) -> None:
        self.layout = layout
        self.flat = tuple(flat)
        self.buckets = sealed(layout, map(digest, flat))

    def changed(self, share: float) -> "Version":
        """Another one, in which this share of the 16-bit values is another."""
        flats = [flat.clone() for flat in self.flat]
        for flat in flats:
            values = flat[: flat.numel() // 2 * 2].view(torch.int16)
            values[torch.randint(0, values.numel(), (int(share * values.numel()),))] ^= 1
        return Version(self.layout, flats)

    def since(self, base: "Version") -> Changes:
        """As learner/publish/changes.py has it."""
        encoded = [
            encode(old, new, unit_bytes(each))
            for old, new, each in zip(base.flat, self.flat, self.buckets, strict=True)
        ]
        pairs = zip(encoded, base.buckets, strict=True)
        deltas = [None if each is None else Delta(old.digest, each.numel(), digest(each)) for each, old in pairs]
        return Changes(tuple(deltas), tuple(encoded))


def transfers(layout: Sequence[Bucket], flat: Sequence[Tensor], replicas: int, repeat: int) -> dict[str, float]:
    """Seconds a GiB of each way over gloo to this many receivers, and their ratios to bare broadcasts; medians."""
    store, receivers = RendezvousStore("127.0.0.1"), Receivers(replicas)
    channel = ProcessGroupChannel(store)
    now = Version(layout, flat)
    nothing = Changes((None,) * len(now.flat), (None,) * len(now.flat))
    numbers = iter(range(10**6))
    try:
        meeting = _meeting(store.port, 1, replicas)
        receivers.tell("join", meeting)
        channel.form(meeting, _soon())
        receivers.all_said()
        receivers.tell("meet bare", _meeting(store.port, 2, replicas), [each.numel() for each in now.flat])
        bare = form_collective(_meeting(store.port, 2, replicas), 0, PrefixStore("bare", store.tcp_store), LONG, CPU)
        receivers.all_said()

        def send(version: Version, changes: Changes) -> None:
            manifest = _manifest(next(numbers), 1, version, changes)
            receivers.tell("stage", manifest, None)
            channel.send(manifest, sent(version.flat, changes), _soon())
            receivers.all_said()

        def send_bare() -> None:
            receivers.tell("bare")
            for each in now.flat:
                bare.broadcast(each, LONG)
            receivers.all_said()

        others = {share: now.changed(share) for share in SHARES}
        found: dict[str, list[float]] = {}
        bytes_sent: dict[float, float] = {}
        for turn in range(repeat + 1):
            timed: dict[str, float] = {"bare": _timed(send_bare), "whole": _timed(lambda: send(now, nothing))}
            for share, other in others.items():
                base, version = (now, other) if turn % 2 == 0 else (other, now)
                send(base, nothing)
                began_s = time.perf_counter()
                changes = version.since(base)
                put_s = time.perf_counter() - began_s
                timed[f"changed {share:.1%}"] = put_s + _timed(lambda version=version, c=changes: send(version, c))  # type: ignore[misc]
                timed[f"put together {share:.1%}"] = put_s
                travelled = sum(each.numel() for each in sent(version.flat, changes))
                bytes_sent[share] = travelled / sum(each.numel() for each in version.flat)
            if turn:
                for name, seconds in timed.items():
                    found.setdefault(name, []).append(seconds)
        return _row(found, sum(each.numel() for each in now.flat) / 2**30, bytes_sent)
    finally:
        channel.close()
        receivers.close()


def fetches(layout: Sequence[Bucket], flat: Sequence[Tensor], repeat: int) -> dict[str, float]:
    """Seconds a GiB by which one receiver fetches a version by HTTP, whole and as what changed; medians."""
    server, receivers = WeightServer(None, 0, "127.0.0.1"), Receivers(1)
    now = Version(layout, flat)
    numbers = iter(range(10**6))
    try:

        def fetch(version: Version, changes: Changes | None) -> float:
            snapshot = Snapshot(
                next(numbers), KeptBuckets(layout, version.flat), 0, (), copied=Mark(CPU), side=SideStream(CPU)
            )
            snapshot.changes = changes
            manifest = _manifest(snapshot.policy_version, 1, version, changes)
            server.publish(snapshot, NO_BOUND)
            offer = WeightOffer(
                learner="", source=server.source, policy_version=manifest.policy_version, pg_generation=1, alone={}
            )

            def get() -> None:
                receivers.tell("stage", manifest, offer)
                receivers.all_said()

            return _timed(get)

        found: dict[str, list[float]] = {}
        bytes_sent: dict[float, float] = {}
        for turn in range(repeat + 1):
            timed: dict[str, float] = {}
            for share in SHARES:
                other = now.changed(share)
                timed["whole"] = fetch(now, None)
                began_s = time.perf_counter()
                changes = other.since(now)
                put_s = time.perf_counter() - began_s
                timed[f"changed {share:.1%}"] = put_s + fetch(other, changes)
                travelled = sum(each.numel() for each in sent(other.flat, changes))
                bytes_sent[share] = travelled / sum(each.numel() for each in other.flat)
            if turn:
                for name, seconds in timed.items():
                    found.setdefault(name, []).append(seconds)
        return _row(found, sum(each.numel() for each in now.flat) / 2**30, bytes_sent)
    finally:
        server.close()
        receivers.close()


def _row(found: dict[str, list[float]], gib: float, bytes_sent: dict[float, float]) -> dict[str, float]:
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    row = {"gib": gib} | {f"{name}, s/GiB": seconds / gib for name, seconds in middle.items()}
    first = "bare" if "bare" in middle else "whole"
    row |= {f"{name} / {first}": seconds / middle[first] for name, seconds in middle.items() if name != first}
    return row | {f"bytes at {share:.1%} / whole": ratio for share, ratio in bytes_sent.items()}


def _meeting(port: int, generation: int, replicas: int) -> Rendezvous:
    return Rendezvous(
        pg_generation=generation,
        backend="gloo",
        host="127.0.0.1",
        port=port,
        size=replicas + 1,
        first_ranks={},
        timeout_s=WAIT_S,
    )


def _manifest(number: int, generation: int, version: Version, changes: Changes | None) -> WeightManifest:
    return WeightManifest(
        policy_version=number,
        pg_generation=generation,
        buckets=version.buckets,
        probes=(),
        bound=NO_BOUND,
        deltas=changes.deltas if changes is not None else (),
        source=WeightSource("", ""),
    )


def _soon() -> Deadline:
    return Deadline.after(WAIT_S, "the benchmark")


def _timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
