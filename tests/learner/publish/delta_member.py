"""A learner and members in processes of their own, over real gloo and HTTP, for tests of what travels and what arrives."""

import itertools
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from learner.publish.changes import Base, sent
from learner.publish.kept_buckets import BucketPool
from learner.publish.snapshot import Changes, Snapshot
from learner.publish.weight_server import WeightServer
from rollout.weights.fetch import fetch_manifest
from rollout.weights.receiver import WeightReceiver
from services.clock import Deadline
from services.config.weights import GlooChannel, HttpChannel
from services.weights.buckets import digest
from services.weights.meeting import RendezvousStore
from services.weights.process_group import ProcessGroupChannel
from services.weights.side_stream import Mark, SideStream
from services.wire.weights import Gap, Rendezvous, WeightManifest, WeightOffer, WeightSource
from tests.forking import forking

CPU = torch.device("cpu")
BOUND = Gap(1e-3, 1e-3, 1e-3)
SHAPES = [
    ("embedding", torch.empty(300, 1001, dtype=torch.bfloat16, device="meta")),  # an odd size
    ("norm", torch.empty(77, dtype=torch.float32, device="meta")),
    ("head", torch.empty(600_000, dtype=torch.bfloat16, device="meta")),
    ("scale", torch.empty(3, dtype=torch.float64, device="meta")),
]
LONG_S = 30.0
_seeds = itertools.count()


def soon(seconds: float = LONG_S) -> Deadline:
    return Deadline.after(seconds, "the test")


def member(pipe: Connection) -> None:
    """Obeys (verb, argument); answers with the digests of what it was told to take, or with the error's text."""
    torch.set_num_threads(1)
    receiver, named = WeightReceiver(CPU), dict[str, torch.Tensor]()
    pipe.send("started")
    while True:
        verb, argument = pipe.recv()
        if verb == "join":
            receiver.join(*argument)
            pipe.send(_settled(receiver))
        elif verb == "spoil":  # as memory that goes bad
            named["head"].view(torch.uint8)[2:200] ^= 1
        else:
            manifest, offer = argument
            if verb == "catch up":
                manifest = fetch_manifest(offer.source, soon())
            receiver.stage(manifest, LONG_S, offer)
            if (state := _settled(receiver)) != "ready":
                pipe.send(state)
                continue
            named = dict(receiver.take(manifest.policy_version).named())
            receiver.give_back()
            pipe.send(digests(named))


def digests(named: dict[str, torch.Tensor]) -> dict[str, str]:
    """A digest of each tensor's bits."""
    return {name: digest(tensor.reshape(-1).view(torch.uint8)) for name, tensor in named.items()}


def _settled(receiver: WeightReceiver) -> str:
    while receiver.progress().state == "busy":
        time.sleep(0.002)
    return receiver.progress().fault or receiver.progress().state


class Members:
    """Processes, by number."""

    def __init__(self) -> None:
        self.processes: list[Any] = []
        self._pipes: list[Connection] = []

    def start(self, count: int) -> None:
        for _ in range(count):
            ours, theirs = forking().Pipe()
            process = forking().Process(target=member, args=(theirs,), daemon=True)
            process.start()
            self.processes.append(process)
            self._pipes.append(ours)
        for which in range(-count, 0):
            assert self.answer(which) == "started"

    def tell(self, which: int, verb: str, argument: Any = None) -> None:
        self._pipes[which].send((verb, argument))

    def answer(self, which: int) -> Any:
        assert self._pipes[which].poll(60), "a member says nothing"
        return self._pipes[which].recv()

    def signal(self, which: int, number: int) -> None:
        os.kill(self.processes[which].pid, number)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


class Sender:
    """The learner's end: weights that change, and what goes out of them."""

    def __init__(self, weights: GlooChannel | HttpChannel) -> None:
        torch.manual_seed(next(_seeds))  # no two have a version in common
        self.version = 0
        self.weights = {name: torch.randn(shape.shape).to(shape.dtype) for name, shape in SHAPES}
        self.server = WeightServer(None, 0, "127.0.0.1")
        self.base = Base(weights, lambda: False)
        self.store = RendezvousStore("127.0.0.1")
        self.channel = ProcessGroupChannel(self.store)
        self._pool = BucketPool(SHAPES, 1, CPU)
        self._generation = 0

    def close(self) -> None:
        self.channel.close()
        self.server.close()

    def step(self, share: float = 0.02) -> None:
        """The next version: this share of the values differs, and the first of each tensor is a NaN or a zero of a sign."""
        self.version += 1
        for weight in self.weights.values():
            moved = torch.rand(weight.shape) < share
            weight[moved] = weight[moved] * 1.5 + 0.25
            weight.view(-1)[0] = (float("nan"), -0.0, 0.0)[self.version % 3]

    def snapshot(self) -> Snapshot:
        """A copy, as a step leaves it."""
        kept, filling = self._pool.take()
        for name, place in kept.named.items():
            place.copy_(self.weights[name])
        snapshot = Snapshot(self.version, kept, filling, (), copied=Mark(CPU), side=SideStream(CPU))
        self.server.publish(snapshot, BOUND)
        assert snapshot.hold()
        return snapshot

    def form(self, members: Members, which: Sequence[int]) -> None:
        """The next generation, of these members."""
        self._generation += 1
        meeting = Rendezvous(
            pg_generation=self._generation,
            backend="gloo",
            host="127.0.0.1",
            port=self.store.port,
            size=len(which) + 1,
            first_ranks={},
            timeout_s=LONG_S,
        )
        for rank, number in enumerate(which):
            members.tell(number, "join", (meeting, rank + 1))
        self.channel.form(meeting, soon(), lambda _: None)
        assert [members.answer(number) for number in which] == ["ready"] * len(which)

    def manifest(self, snapshot: Snapshot, changes: Changes) -> WeightManifest:
        return WeightManifest(
            policy_version=snapshot.policy_version,
            pg_generation=self._generation,
            buckets=snapshot.sealed(),
            probes=(),
            bound=BOUND,
            deltas=changes.deltas,
            source=self.source,
        )

    @property
    def source(self) -> WeightSource:
        return self.server.source

    @property
    def offer(self) -> WeightOffer:
        return WeightOffer(learner="l", source=self.source, policy_version=self.version, pg_generation=1, alone={})

    def send(self, snapshot: Snapshot, changes: Changes) -> None:
        """Broadcast it to members that were told the manifest."""
        self.channel.send(self.manifest(snapshot, changes), sent(snapshot.flat, changes), soon())

    def send_often(self, snapshot: Snapshot, changes: Changes) -> None:
        """Until it fails: the first bytes may leave before the system says that nobody takes them."""
        for _ in range(100):
            self.send(snapshot, changes)

    def prove(self, snapshot: Snapshot) -> None:
        """What the publisher does once a version is confirmed."""
        self.base.is_proved(snapshot)
        snapshot.release(arrived=True)
