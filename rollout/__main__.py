"""A rollout replica as a process: `python -m rollout RUN.toml`."""

import asyncio
import contextlib
import logging
import secrets
import socket
from functools import partial
from pathlib import Path

from rollout.engine import InferenceEngine
from rollout.loop import RolloutStreams, SamplingLoop
from rollout.metrics import READY
from rollout.vllm.engine import VllmEngine
from rollout.weights.follower import WeightFollower
from services.config import RunConfig
from services.config.load import load
from services.entry import DONE, INTERRUPTED, StopSignal, begin, end, redis_connection, service_parser
from services.errors import DeadlineExceeded
from services.health import HealthServer
from services.run.addresses import announce_address
from services.streams.names import DEAD, EVALUATION_PROMPTS, PROMPTS, TRAJECTORIES
from services.streams.redis_stream import RedisStream
from services.weights.membership import Membership
from services.wire.membership import Lease

log = logging.getLogger("ratchet.rollout")


def main() -> int:
    parser = service_parser("rollout")
    parser.add_argument("--replica-id", help="name of this replica; default: the host's name")
    arguments = begin(parser)
    config = load(arguments.config, arguments.overrides)
    replica_id = arguments.replica_id or socket.gethostname()
    return asyncio.run(_run(config, replica_id, arguments.services_folder))


async def _run(config: RunConfig, replica_id: str, services_folder: Path | None) -> int:
    stop = asyncio.Event()
    running_loop = asyncio.get_running_loop()
    stopping = StopSignal(on_stop=partial(running_loop.call_soon_threadsafe, stop.set))
    connection = await asyncio.to_thread(redis_connection, config)
    membership = Membership(connection, config.name, config.deadlines.lease_s)
    incarnation = secrets.token_hex(4)
    engine: InferenceEngine = VllmEngine(config)
    if not await _start(engine, stop, config.deadlines.engine_start_s):
        await engine.stop()
        return INTERRUPTED
    follower = WeightFollower(
        engine,
        membership,
        replica_id=replica_id,
        incarnation=incarnation,
        transfer_s=config.deadlines.weight_transfer_s,
        max_gap_nats=config.max_gap_nats,
        excluded_s=4 * config.deadlines.lease_s + config.deadlines.weight_join_s,
    )

    def stream(name: str) -> RedisStream:
        return RedisStream(connection, config.name, name, replica_id, config.deadlines.reclaim_idle_s)

    loop = SamplingLoop(
        engine,
        RolloutStreams(stream(EVALUATION_PROMPTS), stream(PROMPTS), stream(TRAJECTORIES), stream(DEAD)),
        follower.ready,
        replica_id=replica_id,
        max_concurrent_sequences=config.rollout.max_concurrent_sequences,
        group_size=config.rollout.sampling.group_size,
        max_deliveries=config.redis.max_deliveries,
    )
    health = HealthServer(config.rollout.metrics_host, config.rollout.metrics_port, ready=follower.ready.is_set)
    announce_address(services_folder, replica_id, health.url)

    async def keep_lease() -> None:
        while not stop.is_set():
            sampling_s, ready_s = loop.busy.totals()
            READY.set(follower.ready.is_set())
            lease = Lease(
                replica_id=replica_id,
                incarnation=incarnation,
                ranks=engine.world_size,
                policy_version=engine.policy_version,
                ready=follower.ready.is_set(),
                sampling_s=sampling_s,
                ready_s=ready_s,
            )
            await asyncio.to_thread(membership.register, lease)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), config.deadlines.lease_s / 3)

    sampling = asyncio.create_task(loop.run(stop), name="sampling")
    work = [
        asyncio.create_task(follower.run(stopping), name="weights"),
        asyncio.create_task(keep_lease(), name="lease"),
        sampling,
        asyncio.create_task(loop.renew(config.deadlines.reclaim_idle_s / 3, stop), name="renewing"),
    ]
    try:
        await asyncio.wait([*work, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            if task.done():
                task.result()
        log.info("stopping")
        stop.set()
        await sampling  # gives back what it claimed; cancelled, it would leave that lying until its idle time
    finally:
        stop.set()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await asyncio.to_thread(membership.leave, replica_id)
        await engine.stop()
        health.close()
    return DONE


async def _start(engine: InferenceEngine, stop: asyncio.Event, within_s: float) -> bool:
    """False when `stop` came first. Raises what the engine raises, or DeadlineExceeded."""
    starting, stopped = asyncio.create_task(engine.start()), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        starting.result()
        return not stop.is_set()
    starting.cancel()
    if stop.is_set():
        return False
    raise DeadlineExceeded("the inference engine to start", late_s=0.0)


if __name__ == "__main__":
    end(main)
