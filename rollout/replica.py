"""One rollout replica around an engine that has started.

Four tasks on one asyncio loop share the engine: the follower takes in weights, the sampling loop turns prompts into
groups, its claims are renewed, and the lease says that all of this is alive. The first of them that fails ends the
replica; another start takes its place.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

from rollout.claims import RolloutStreams
from rollout.conversation.conversations import Conversations
from rollout.conversation.dialogue import Script
from rollout.engine import InferenceEngine
from rollout.environments.loading import environment_maker
from rollout.loop import SamplingLoop
from rollout.metrics import READY
from rollout.minute import Minute, is_quiet
from rollout.weights.follower import WeightFollower
from services.clock import now_s
from services.config import RunConfig
from services.entry import works
from services.errors import DeadlineExceeded
from services.gpu_memory import export_gpu_memory
from services.health import HealthServer
from services.minutes import log_each_minute
from services.run.addresses import announce_address
from services.streams.names import DEAD, EVALUATION_PROMPTS, PROMPTS, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from services.weights.membership import Membership
from services.wire.membership import Lease

log = logging.getLogger("ratchet.rollout")


async def start_engine(engine: InferenceEngine, stop: asyncio.Event, within_s: float) -> bool:
    """Start the engine; False if `stop` came first. Raises what engine.start raises, or DeadlineExceeded.

    Waits for: the inference engine to start.
    Until: within_s (deadlines.engine_start_s).
    Ended by: the started engine, its fault, or `stop`.
    Metric: none; /metrics is served once the engine has started. The learner's ratchet_waiting shows the missing replica.
    """
    began_s = now_s()
    starting = asyncio.create_task(engine.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        starting.result()
        log.info("the engine has started, in %.1f s", now_s() - began_s)
        return not stop.is_set()
    starting.cancel()
    if stop.is_set():
        return False
    raise DeadlineExceeded("the inference engine to start", late_s=0.0)


class Replica:
    """Samples for one run from now until it is stopped. The engine is started before and stopped by the caller."""

    def __init__(
        self,
        config: RunConfig,
        engine: InferenceEngine,
        connection: RedisConnection,
        *,
        replica_id: str,
        services_folder: Path | None = None,
    ) -> None:
        """services_folder: where the address of /metrics is announced, if it is. Raises InputError if its port is in use."""
        deadlines = config.deadlines
        self._engine = engine
        self._replica_id = replica_id
        self._incarnation = secrets.token_hex(4)
        self._lease_s = deadlines.lease_s
        self._reclaim_idle_s = deadlines.reclaim_idle_s
        self._membership = Membership(connection, config.name, deadlines.lease_s)
        self._follower = WeightFollower(
            engine,
            self._membership,
            replica_id=replica_id,
            incarnation=self._incarnation,
            deadlines=deadlines,
        )

        def stream(name: str) -> RedisStream:
            return RedisStream(connection, config.name, name, replica_id, deadlines.reclaim_idle_s)

        self._conversations: Conversations | None = None
        if config.environment is not None:
            maker = environment_maker(config, services_folder)
            self._conversations = Conversations(config, Script.of(config), maker)
        self._loop = SamplingLoop(
            engine,
            RolloutStreams(stream(EVALUATION_PROMPTS), stream(PROMPTS), stream(TRAJECTORIES), stream(DEAD)),
            self._follower.ready,
            replica_id=replica_id,
            most_sequences=config.most_open_sequences,
            group_size=config.largest_group,
            max_deliveries=config.redis.max_deliveries,
            conversations=self._conversations,
        )
        self._health = HealthServer(
            config.rollout.metrics_host,
            config.rollout.metrics_port,
            ready=self._follower.ready.is_set,
            run=config.name,
            service=replica_id,
        )
        if config.device == "cuda":
            export_gpu_memory()
        announce_address(services_folder, replica_id, self._health.url)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve the run; after a clean stop, give back the prompts that were claimed and not finished.

        Raises what ended it: EngineFailed, WeightSyncError when it stays outside the process group, or StreamError.

        Waits for: `stop`, or the end of one of the replica's tasks.
        Until: it is stopped; each task's own waits have deadlines.
        Ended by: `stop`, or the first task that fails.
        Metric: ratchet_rollout_ready is 1 while it serves.
        """
        sampling = asyncio.create_task(self._loop.run(stop), name="sampling")
        minute = Minute(lambda: self._loop.busy_and_ready_s()[0])
        tasks = [
            asyncio.create_task(self._follower.run(stop.is_set), name="weights"),
            asyncio.create_task(self._keep_lease(stop), name="lease"),
            sampling,
            asyncio.create_task(self._loop.renew(self._reclaim_idle_s / 3, stop), name="renewing"),
            asyncio.create_task(log_each_minute(log, minute.say, stop, quiet=is_quiet), name="a line a minute"),
        ]
        try:
            await _first_to_end(tasks, stop)
            log.info("stopping")
            stop.set()
            await sampling  # gives back what it claimed; cancelled, it would leave that lying until its idle time
        finally:
            stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._membership.leave, self._replica_id)
            self._health.close()
            if self._conversations is not None:
                await self._conversations.stop()

    async def _keep_lease(self, stop: asyncio.Event) -> None:
        """Renew the lease three times within its length, until `stop`. Where it could not be renewed in time, because this
        process or the network stood still, the replica is fenced."""
        renewed_s = now_s()
        while not stop.is_set():
            if now_s() - renewed_s > self._lease_s:
                await self._follower.fence()
            READY.set(self._follower.ready.is_set())
            if self._follower.ready.is_set():
                works()
            await asyncio.to_thread(self._membership.register, self._lease())
            if now_s() - renewed_s > self._lease_s:
                await self._follower.fence()
            renewed_s = now_s()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._lease_s / 3)

    def _lease(self) -> Lease:
        sampling_s, ready_s = self._loop.busy_and_ready_s()
        return Lease(
            replica_id=self._replica_id,
            incarnation=self._incarnation,
            ranks=self._engine.world_size,
            policy_version=self._engine.policy_version,
            pg_generation=self._follower.pg_generation,
            ready=self._follower.ready.is_set(),
            sampling_s=sampling_s,
            ready_s=ready_s,
        )


async def _first_to_end(tasks: Sequence["asyncio.Task[None]"], stop: asyncio.Event) -> None:
    """Return at `stop` or when a task ends; raise what a task raised."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in tasks:
        if task.done():
            task.result()
