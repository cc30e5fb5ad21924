"""The two ends of the weight control plane, learner and replicas, over a real server. Fakes move the bytes; that bytes arrive
is shown by tests/services/weights and tests/rollout."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import torch

from learner.publish.kept_buckets import BucketPool
from learner.publish.publisher import WeightPublisher
from learner.publish.snapshot import Snapshot
from learner.publish.sync_report import SyncReport
from learner.publish.weight_server import WeightServer
from rollout.weights.follower import WeightFollower
from services.clock import Deadline
from services.config import RunConfig
from services.errors import WeightSyncError
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.weights.side_stream import Mark, SideStream
from services.wire.membership import Lease
from services.wire.weights import Probe, Rendezvous, WeightManifest
from tests.fakes.engine import FakeEngine

CPU = torch.device("cpu")


class CountingChannel:
    """Moves nothing; fails when it is told to."""

    def __init__(self) -> None:
        self.formed: list[Rendezvous] = []
        self.sent: list[int] = []
        self.sent_bytes: list[int] = []
        self.fail_next = 0
        self.closed = False
        self.before_send: Callable[[], object] = lambda: None
        self.is_sending = False

    def form(self, rendezvous: Rendezvous, deadline: Deadline, arrived: Callable[[int], None]) -> None:
        self.formed.append(rendezvous)
        for rank in rendezvous.first_ranks.values():
            arrived(rank)

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[torch.Tensor], deadline: Deadline) -> None:
        self.is_sending = True
        self.before_send()
        if self.fail_next:
            self.fail_next -= 1
            raise WeightSyncError("a member is gone")
        self.sent.append(manifest.policy_version)
        self.sent_bytes.append(sum(flat.numel() for flat in flat_buckets))

    def close(self) -> None:
        self.closed = True


def lease(
    replica_id: str, incarnation: str, policy_version: int = 0, ready: bool = False, pg_generation: int | None = None
) -> Lease:
    return Lease(
        replica_id=replica_id,
        incarnation=incarnation,
        ranks=1,
        policy_version=policy_version,
        ready=ready,
        pg_generation=pg_generation,
        sampling_s=0.0,
        ready_s=0.0,
    )


class Replica:
    """A follower over a fake engine, with its lease, on a thread of its own."""

    def __init__(self, config: RunConfig, connection: RedisConnection, replica_id: str) -> None:
        self.engine = FakeEngine()
        self.replica_id = replica_id
        self._config = config
        self._membership = Membership(connection, config.name, config.deadlines.lease_s)
        self.stopping = threading.Event()
        self.follower: WeightFollower | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    async def _run(self) -> None:
        self.follower = WeightFollower(
            self.engine,
            self._membership,
            replica_id=self.replica_id,
            incarnation="1",
            deadlines=self._config.deadlines.model_copy(update={"weight_transfer_s": 3.0}),
        )
        following = asyncio.create_task(self.follower.run(self.stopping.is_set))
        while not self.stopping.is_set():
            follower = self.follower
            words = lease(
                self.replica_id,
                "1",
                self.engine.policy_version,
                follower.ready.is_set(),
                follower.pg_generation,
            )
            await asyncio.to_thread(self._membership.register, words)
            await asyncio.sleep(0.2)
        await following

    def leave(self) -> None:
        self.stopping.set()
        self._thread.join()
        self._membership.leave(self.replica_id)

    def die(self) -> None:
        """Stop without a word to the learner."""
        self.stopping.set()
        self._thread.join()


class Learner:
    """A publisher and what it reported."""

    def __init__(self, config: RunConfig, connection: RedisConnection, generation: int = 0) -> None:
        self.channel = CountingChannel()
        self.pool = BucketPool([("weight", torch.empty(3, device="meta"))], 1, CPU)
        self.reports: list[SyncReport] = []
        self.lost: list[str] = []
        membership = Membership(connection, config.name, config.deadlines.lease_s)
        self.publisher = WeightPublisher(
            config,
            membership=membership,
            channel=self.channel,
            address=("127.0.0.1", 1),
            server=WeightServer(None, 0, "127.0.0.1"),
            on_sync=self.reports.append,
            on_lost=self.lost.append,
            stopping=lambda: False,
            generation=generation,
        )

    def publish(self, policy_version: int, disk_logp: Sequence[float] = ()) -> None:
        """As the training loop does: copy the weights, then hand the copy over."""
        self.publisher.publish(self.take(policy_version, disk_logp))

    def take(self, policy_version: int, disk_logp: Sequence[float] = ()) -> Snapshot:
        """A version whose weights are all its number."""
        kept, filling = self.pool.take()
        kept.named["weight"].fill_(float(policy_version))
        probes = [Probe(tokens, (-1.0, -2.0), tuple(disk_logp)) for tokens in ((1, 2, 3), (4, 5, 6))]
        return Snapshot(policy_version, kept, filling, probes, copied=Mark(CPU), side=SideStream(CPU))


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "this did not come about in time"
        time.sleep(0.02)
