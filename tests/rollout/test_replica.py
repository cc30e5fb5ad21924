"""A replica in this process, around a fake engine, with a real server between it and the learner that the test is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.engine import EngineFailed
from rollout.replica import Replica, start_engine
from services.config import RunConfig
from services.config.load import load
from services.errors import DeadlineExceeded
from services.run.addresses import addresses
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.weights import Gap, Probe, Rendezvous, WeightManifest
from tests.fakes.engine import FakeEngine
from tests.services.config.test_load import SMALLEST

REPLICA = "rollout-0"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(tmp_path / "run.toml", [f"name={tmp_path.name}", "deadlines.lease_s=1.0"])


@pytest.fixture
def membership(config: RunConfig, redis_connection: RedisConnection) -> Membership:
    return Membership(redis_connection, config.name, config.deadlines.lease_s)


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


def send_weights(membership: Membership, version: int) -> None:
    membership.announce(
        Rendezvous(pg_generation=1, backend="gloo", host="", port=1, size=2, first_ranks={REPLICA: 1}, timeout_s=5.0)
    )
    membership.announce(
        WeightManifest(
            policy_version=version,
            pg_generation=1,
            buckets=(),
            probes=(Probe((1, 2), (-1.0,)),),
            bound=Gap(1e-3, 1e-3, 1e-3),
        )
    )


def test_its_lease_says_what_it_holds_for_as_long_as_it_serves(
    config: RunConfig, membership: Membership, redis_connection: RedisConnection, tmp_path: Path
) -> None:
    async def scenario() -> None:
        engine = FakeEngine(world_size=2)
        stop = asyncio.Event()
        replica = Replica(config, engine, redis_connection, replica_id=REPLICA, services_folder=tmp_path / "services")
        serving = asyncio.create_task(replica.run(stop))
        await becomes(lambda: REPLICA in membership.live())
        lease = membership.live()[REPLICA]
        assert (lease.ranks, lease.policy_version, lease.ready) == (2, -1, False)
        send_weights(membership, version=3)
        await becomes(lambda: membership.live()[REPLICA].ready)
        assert membership.live()[REPLICA].policy_version == 3
        await asyncio.sleep(1.5)  # longer than a lease
        assert REPLICA in membership.live()
        stop.set()
        await serving
        assert membership.live() == {}

    asyncio.run(scenario())
    assert addresses(tmp_path / "services").keys() == {REPLICA}


def test_a_dead_engine_ends_it_and_it_leaves_the_run(
    config: RunConfig, membership: Membership, redis_connection: RedisConnection
) -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        serving = asyncio.create_task(
            Replica(config, engine, redis_connection, replica_id=REPLICA).run(asyncio.Event())
        )
        await becomes(lambda: REPLICA in membership.live())
        engine.dead = "out of memory"
        send_weights(membership, version=3)
        with pytest.raises(EngineFailed, match="out of memory"):
            await asyncio.wait_for(serving, 10)
        assert membership.live() == {}

    asyncio.run(scenario())


def test_an_engine_that_does_not_start_in_time_is_given_up() -> None:
    class Slow(FakeEngine):
        async def start(self) -> None:
            await asyncio.sleep(600)

    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded, match="the inference engine to start"):
            await start_engine(Slow(), asyncio.Event(), within_s=0.05)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        assert not await start_engine(Slow(), stop, within_s=600)
        assert await start_engine(FakeEngine(), asyncio.Event(), within_s=600)

    asyncio.run(scenario())


def test_a_fault_of_the_engine_while_it_starts_is_raised() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        engine.dead = "no such model"
        with pytest.raises(EngineFailed, match="no such model"):
            await start_engine(engine, asyncio.Event(), within_s=600)

    asyncio.run(scenario())
