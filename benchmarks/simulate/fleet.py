"""Replicas: each has the run's own `WeightFollower` and keeps its lease as a replica does; its engine only takes time."""

import asyncio
import random
from collections.abc import Sequence
from typing import cast

from benchmarks.simulate.network import Network
from benchmarks.simulate.server import Connection, Server
from benchmarks.simulate.virtual import Blocked, VirtualLoop
from rollout.engine import BASE_VERSION, SwapReport
from rollout.weights.follower import WeightFollower
from services.clock import Deadline
from services.config import RunConfig
from services.errors import WeightSyncError
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.membership import Lease
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer

PROBE_S = 0.03
DIGEST_BYTES_S = 10e9  # the last bucket is checked after it has come
SWAP_S = 0.05
UNEVEN = 0.3
"""Engines differ by up to this share of what they take."""


class Process:
    """Whether a replica runs, stands still or is gone."""

    def __init__(self) -> None:
        self.still: asyncio.Future[None] | None = None

    async def awake(self) -> None:
        """Return once it runs."""
        while self.still is not None:
            await asyncio.shield(self.still)


class ReplicaConnection(Connection):
    """Says nothing while the process stands still."""

    def __init__(self, server: Server, process: Process) -> None:
        super().__init__(server)
        self._process = process

    def run_script(self, script: str, keys: list[str], args: list[object] | None = None) -> object:
        self._stand_still()
        return super().run_script(script, keys, args)

    def execute(self, command: str, *args: object, block_s: float = 0.0) -> object:
        self._stand_still()
        return super().execute(command, *args, block_s=block_s)

    def _stand_still(self) -> None:
        if self._process.still is not None:
            raise Blocked(self._process.still)


class SimulatedEngine:
    """Receives what the network brings, after its own time."""

    world_size = 1
    running_sequences = 64

    def __init__(self, network: Network, process: Process, pace: float) -> None:
        self.policy_version = BASE_VERSION
        self._network = network
        self._process = process
        self._pace = pace
        self._rank = 0
        self._manifest: WeightManifest | None = None

    async def start(self) -> None: ...

    async def stop(self, *, with_process: bool = False) -> None: ...

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        raise AssertionError("a simulated engine takes weights; no prompt goes out to it")

    async def probe(self, token_ids: Sequence[int], deadline: Deadline) -> list[float]:
        await asyncio.sleep(PROBE_S * self._pace)
        await self._process.awake()
        assert self._manifest is not None
        return next(list(probe.logp) for probe in self._manifest.probes if probe.token_ids == tuple(token_ids))

    async def join(self, rendezvous: Rendezvous, replica_id: str) -> None:
        self._rank = rendezvous.first_ranks[replica_id]
        try:
            await self._network.join(rendezvous, self._rank)
        except TimeoutError as late:
            raise WeightSyncError("not all members met in time") from late
        await self._process.awake()

    async def stage_and_swap(
        self, manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
    ) -> SwapReport:
        sizes = [bucket.size_bytes for bucket in manifest.buckets]
        if offer is None:
            await self._network.received(manifest, self._rank)
        else:
            await self._network.fetch(sizes)
        await asyncio.sleep(sizes[-1] / DIGEST_BYTES_S + SWAP_S * self._pace)
        await self._process.awake()
        self.policy_version = manifest.policy_version
        self._manifest = manifest
        return SwapReport(manifest.policy_version, 0.0, 0.0, self.running_sequences, "exchange")


class SimulatedReplica:
    """One replica, from now on."""

    def __init__(self, loop: VirtualLoop, server: Server, network: Network, config: RunConfig, number: int) -> None:
        self.replica_id = f"rollout-{number}"
        self.process = Process()
        self._loop = loop
        self._lease_s = config.deadlines.lease_s
        pace = 1.0 + UNEVEN * random.Random(number).random()
        self._begins_s = random.Random(number).random()  # hosts do not start at the same moment
        self.engine = SimulatedEngine(network, self.process, pace)
        connection = cast(RedisConnection, ReplicaConnection(server, self.process))
        self._membership = Membership(connection, config.name, self._lease_s)
        self.follower = WeightFollower(
            self.engine, self._membership, replica_id=self.replica_id, incarnation="1", deadlines=config.deadlines
        )
        self.tasks = [loop.begin(self._follow()), loop.begin(self._keep_lease())]

    @property
    def is_gone(self) -> bool:
        return self.process.still is not None

    def suspend(self) -> None:
        self.process.still = self._loop.create_future()

    def go_on(self) -> None:
        still, self.process.still = self.process.still, None
        if still is not None:
            still.set_result(None)

    async def _follow(self) -> None:
        await asyncio.sleep(self._begins_s)
        await self.follower.run(lambda: False)

    async def _keep_lease(self) -> None:
        """As `Replica._keep_lease` in rollout/replica.py."""
        await asyncio.sleep(self._begins_s)
        renewed_s = self._loop.time()
        while True:
            await self.process.awake()
            if self._loop.time() - renewed_s > self._lease_s:
                await self.follower.fence()
            await asyncio.to_thread(self._membership.register, self._lease())
            if self._loop.time() - renewed_s > self._lease_s:
                await self.follower.fence()
            renewed_s = self._loop.time()
            await asyncio.sleep(self._lease_s / 3)

    def _lease(self) -> Lease:
        return Lease(
            replica_id=self.replica_id,
            incarnation="1",
            ranks=1,
            policy_version=self.engine.policy_version,
            pg_generation=self.follower.pg_generation,
            ready=self.follower.ready.is_set(),
            sampling_s=0.0,
            ready_s=0.0,
        )
