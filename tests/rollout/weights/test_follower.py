"""A replica follows the learner's announcements, and ends with its engine."""

import asyncio

import pytest

from rollout.engine import EngineFailed
from rollout.weights.follower import WeightFollower
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.membership import Confirmation
from services.wire.weights import Rendezvous, WeightManifest
from tests.fakes.engine import FakeEngine

REPLICA = "rollout-0"


class Bench:
    """A follower of a fake engine, with a real server between it and the learner that the test is."""

    def __init__(self, connection: RedisConnection, run: str) -> None:
        self.engine, self.membership = FakeEngine(), Membership(connection, run, lease_s=5.0)
        self.confirmations = self.membership.confirmations()
        self.follower = WeightFollower(
            self.engine,
            self.membership,
            replica_id=REPLICA,
            incarnation="first",
            transfer_s=5.0,
            max_gap_nats=1e-3,
            excluded_s=60.0,
        )
        self.stopped = False

    def rendezvous(self, generation: int, *, replica_id: str = REPLICA) -> Rendezvous:
        return Rendezvous(
            pg_generation=generation,
            backend="gloo",
            host="127.0.0.1",
            port=1,
            size=2,
            first_ranks={replica_id: 1},
            timeout_s=5.0,
        )

    def manifest(self, generation: int, version: int) -> WeightManifest:
        return WeightManifest(
            policy_version=version, pg_generation=generation, buckets=(), probe_token_ids=(1, 2), probe_logp=(-1.0,)
        )

    async def confirmed(self) -> Confirmation:
        for _ in range(10):
            for message in await asyncio.to_thread(lambda: list(self.confirmations.read(1.0))):
                assert isinstance(message, Confirmation)
                return message
        raise AssertionError("nothing was confirmed")


def test_it_joins_swaps_proves_and_is_ready(redis_connection: RedisConnection) -> None:
    async def scenario() -> None:
        bench = Bench(redis_connection, "follow-ready")
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        bench.membership.announce(bench.rendezvous(1))
        assert (await bench.confirmed()).phase == "joined"
        bench.membership.announce(bench.manifest(1, version=3))
        swapped = await bench.confirmed()
        assert (swapped.phase, swapped.policy_version, swapped.gap_nats, swapped.fault) == ("swapped", 3, 0.0, None)
        assert bench.follower.ready.is_set()
        bench.stopped = True
        await following

    asyncio.run(scenario())


def test_a_transfer_that_fails_is_confirmed_with_its_fault_and_the_replica_waits(
    redis_connection: RedisConnection,
) -> None:
    async def scenario() -> None:
        bench = Bench(redis_connection, "follow-fault")
        bench.engine.refuse_transfers = 1
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        bench.membership.announce(bench.rendezvous(1))
        assert (await bench.confirmed()).fault is None
        bench.membership.announce(bench.manifest(1, version=3))
        assert "another digest" in str((await bench.confirmed()).fault)
        assert not bench.follower.ready.is_set()
        assert not following.done()
        bench.stopped = True
        await following

    asyncio.run(scenario())


@pytest.mark.parametrize("dies", ["before the join", "before the swap"])
def test_a_dead_engine_ends_the_replica(redis_connection: RedisConnection, dies: str) -> None:
    async def scenario() -> None:
        bench = Bench(redis_connection, f"follow-{dies}")
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        if dies == "before the swap":
            bench.membership.announce(bench.rendezvous(1))
            await bench.confirmed()
        bench.engine.dead = "out of memory"
        bench.membership.announce(bench.rendezvous(2) if dies == "before the join" else bench.manifest(1, version=3))
        with pytest.raises(EngineFailed, match="out of memory"):
            await asyncio.wait_for(following, 10)

    asyncio.run(scenario())
