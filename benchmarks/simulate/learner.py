"""The learner: the run's own `ReplicaGroup` over fake wires, and a training loop that makes versions."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar, cast
from unittest import mock

import torch
from torch import Tensor

from benchmarks.simulate.network import Network
from benchmarks.simulate.server import LearnerConnection, Server
from benchmarks.simulate.virtual import VirtualLoop
from learner.publish.publisher import LOOK_EVERY_S
from learner.publish.replica_group import ReplicaGroup
from learner.publish.snapshot import Snapshot
from learner.publish.sync_report import SyncReport
from services.clock import Deadline
from services.config import RunConfig
from services.errors import WeightSyncError
from services.streams.redis_connection import RedisConnection
from services.threads import LastingThread
from services.weights.buckets import lay_out, sealed
from services.weights.membership import Membership
from services.wire.codec import encode
from services.wire.weights import Bucket, Probe, Rendezvous, WeightManifest, WeightOffer, WeightSource

T = TypeVar("T")
PROBES = tuple(Probe(tuple(range(first, first + 64)), (-1.0,) * 63) for first in (0, 64))


def model_of_7b(bucket_mib: int) -> tuple[Bucket, ...]:
    """The buckets of a model of 7.6 billion parameters in bfloat16, with the names and shapes of Qwen2.5-7B."""
    hidden, inner, narrow, vocabulary = 3584, 18944, 512, 152064
    shapes: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (vocabulary, hidden))]
    for layer in range(28):
        place = f"model.layers.{layer}"
        for name, rows in (("q_proj", hidden), ("k_proj", narrow), ("v_proj", narrow)):
            shapes += [
                (f"{place}.self_attn.{name}.weight", (rows, hidden)),
                (f"{place}.self_attn.{name}.bias", (rows,)),
            ]
        shapes += [
            (f"{place}.self_attn.o_proj.weight", (hidden, hidden)),
            (f"{place}.mlp.gate_proj.weight", (inner, hidden)),
            (f"{place}.mlp.up_proj.weight", (inner, hidden)),
            (f"{place}.mlp.down_proj.weight", (hidden, inner)),
            (f"{place}.input_layernorm.weight", (hidden,)),
            (f"{place}.post_attention_layernorm.weight", (hidden,)),
        ]
    shapes += [("model.norm.weight", (hidden,)), ("lm_head.weight", (vocabulary, hidden))]
    named = [(name, torch.empty(shape, dtype=torch.bfloat16, device="meta")) for name, shape in shapes]
    buckets = lay_out(named, bucket_mib)
    return sealed(buckets, ["0" * 32] * len(buckets))


class Version:
    """What `ReplicaGroup` needs of a snapshot."""

    probes = PROBES
    flat: tuple[Tensor, ...] = ()

    def __init__(self, policy_version: int, buckets: tuple[Bucket, ...]) -> None:
        self.policy_version = policy_version
        self._buckets = buckets

    def sealed(self) -> tuple[Bucket, ...]:
        return self._buckets

    def give_up(self) -> None: ...

    @contextmanager
    def sending(self) -> Iterator[None]:
        yield


class Channel:
    """A WeightChannel whose work goes on in the loop: `begin` takes it up where a run has a thread."""

    def __init__(self, loop: VirtualLoop, network: Network) -> None:
        self._loop = loop
        self._network = network
        self._begun: Coroutine[Any, Any, None] | None = None
        self._task: asyncio.Task[None] | None = None

    def form(self, rendezvous: Rendezvous, deadline: Deadline, arrived: Callable[[int], None]) -> None:
        self._begun = self._network.meet(rendezvous, arrived)

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[Tensor], deadline: Deadline) -> None:
        self._begun = self._network.send(manifest)

    def close(self) -> None:
        self._network.leave()
        if self._task is not None:
            self._task.cancel()

    def begin(self, work: Callable[[], None]) -> "Future[None]":
        """In place of a thread."""
        outcome: Future[None] = Future()
        outcome.set_running_or_notify_cancel()
        work()
        begun, self._begun = self._begun, None
        if begun is None:
            outcome.set_result(None)
            return outcome

        def settle(task: "asyncio.Task[None]") -> None:
            fault = WeightSyncError("the group was closed") if task.cancelled() else task.exception()
            if fault is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(fault)

        self._task = self._loop.begin(begun)
        self._task.add_done_callback(settle)
        return outcome


class SimulatedLearner:
    """Makes a version every step_s seconds, as far ahead of the replicas as max_lag allows, and brings the newest to them."""

    def __init__(self, loop: VirtualLoop, server: Server, network: Network, config: RunConfig, step_s: float) -> None:
        self._loop = loop
        self._config = config
        self._step_s = step_s
        self._buckets = model_of_7b(config.weights.bucket_mib)
        self._server = server
        self.version = 0
        self.reports: list[SyncReport] = []
        self.tries = 0
        self.bringing_s: list[float] = []
        """What each broadcast took, with the meeting where the members had changed."""
        self.waited_s = 0.0
        """How long steps waited for replicas to confirm."""
        self.lost: list[str] = []
        self._channel = Channel(loop, network)
        self.group = ReplicaGroup(
            config,
            Membership(cast(RedisConnection, LearnerConnection(server)), config.name, config.deadlines.lease_s),
            self._channel,
            ("learner", 1),
            source=WeightSource("http://learner:1", "0" * 32),
            stopping=lambda: False,
            on_lost=self.lost.append,
        )

    def begin_training(self) -> None:
        """Take steps from now on."""
        self._loop.begin(self._train())

    async def _train(self) -> None:
        while True:
            await asyncio.sleep(self._step_s)
            while self.version - (self.group.confirmed_version or 0) > self._config.learner.max_lag:
                await asyncio.sleep(0.05)
                self.waited_s += 0.05
            self.version += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, work that a run gives to a thread goes on in the loop, and the weight server is this one's."""
        with (
            mock.patch("learner.publish.replica_group.in_daemon_thread", lambda work, _: self._channel.begin(work)),
            mock.patch.object(LastingThread, "begin", lambda _, work: self._channel.begin(work)),
            mock.patch("rollout.weights.follower.fetch_manifest", self._serve),
        ):
            yield

    def _serve(self, offer: WeightOffer, deadline: Deadline) -> WeightManifest:
        manifest = WeightManifest(
            policy_version=self.version,
            pg_generation=0,
            buckets=self._buckets,
            probes=PROBES,
            bound=self.group.bound,
        )
        self._loop.owe(1e-3 + len(encode(manifest)) * 1e-9)
        return manifest

    def look(self) -> None:
        """One turn of the publisher's thread (`WeightPublisher._work` and `_bring`): the newest version, if somebody lacks it."""
        wanted = cast(Snapshot, Version(self.version, self._buckets))
        live = self.group.look(wanted.policy_version)
        if not live:
            self._loop.go_on(LOOK_EVERY_S)
            return
        began_s = self._loop.time()
        self.tries += 1
        report = self.group.bring(wanted, live)
        if report is not None:
            self.reports.append(report)
            self.bringing_s.append(self._loop.time() - began_s)

    def until(self, holds: Callable[[], bool], within_s: float) -> float:
        """Go on until something holds; returns the seconds that it took, or infinity."""
        began_s = self._loop.time()
        while not holds():
            if self._loop.time() - began_s > within_s:
                return float("inf")
            self.look()
        return self._loop.time() - began_s
