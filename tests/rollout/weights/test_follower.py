"""A replica follows the learner's announcements, ends with its engine, and does not stay outside for ever."""

import asyncio
from collections.abc import Sequence

import pytest

from rollout.engine import EngineFailed, SwapReport
from rollout.weights.follower import WeightFollower, rejoin_deadline_s
from services.clock import Deadline
from services.config.deadlines import DeadlinesConfig
from services.errors import WeightSyncError
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.membership import Confirmation
from services.wire.weights import Gap, Probe, Rendezvous, WeightManifest, WeightOffer
from tests.fakes.engine import FakeEngine

REPLICA = "rollout-0"


class Bench:
    """A follower of a fake engine, with a real server between it and the learner that the test is."""

    def __init__(
        self,
        connection: RedisConnection,
        run: str,
        deadlines: DeadlinesConfig | None = None,
        engine: FakeEngine | None = None,
    ) -> None:
        self.engine = engine or FakeEngine()
        self.membership = Membership(connection, run, lease_s=5.0)
        self.confirmations = self.membership.confirmations()
        self.follower = WeightFollower(
            self.engine,
            self.membership,
            replica_id=REPLICA,
            incarnation="first",
            deadlines=deadlines or DeadlinesConfig(weight_transfer_s=5.0),
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

    def manifest(self, generation: int, version: int, disk_logp: tuple[float, ...] = ()) -> WeightManifest:
        return WeightManifest(
            policy_version=version,
            pg_generation=generation,
            buckets=(),
            probes=(Probe((1, 2), (-1.0,), disk_logp), Probe((3, 4), (-1.0,), disk_logp)),
            bound=Gap(1e-3, 1e-3, 1e-3),
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
        assert (swapped.phase, swapped.policy_version, swapped.gap, swapped.fault) == ("swapped", 3, Gap(0, 0, 0), None)
        assert bench.follower.ready.is_set()
        bench.stopped = True
        await following

    asyncio.run(scenario())


def test_around_its_first_swap_it_measures_what_kernels_differ_by_and_what_the_swap_changed(
    redis_connection: RedisConnection,
) -> None:
    class Probed(FakeEngine):
        async def probe(self, token_ids: Sequence[int], deadline: Deadline) -> list[float]:
            return [-1.25] if self.swapped else [-1.125]

    async def measured(name: str, *versions: int) -> list[tuple[float | None, float | None, float | None]]:
        bench = Bench(redis_connection, f"follow-{name}", engine=Probed())
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        bench.membership.announce(bench.rendezvous(1))
        await bench.confirmed()
        found: list[tuple[float | None, float | None, float | None]] = []
        for version in versions:
            bench.membership.announce(bench.manifest(1, version, disk_logp=(-1.0,)))
            swapped = await bench.confirmed()
            assert swapped.gap is not None
            kernels = None if swapped.kernel_gap is None else swapped.kernel_gap.largest_nats
            found.append((kernels, swapped.moved_nats, swapped.gap.largest_nats))
        bench.stopped = True
        await following
        return found

    assert asyncio.run(measured("new", 0, 1)) == [(0.125, 0.125, 0.25), (None, None, 0.25)]
    # Version 5 is not what is on disk, so it may move the probe.
    assert asyncio.run(measured("resumed", 5)) == [(0.125, None, 0.25)]


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


def test_a_replica_that_stays_outside_the_process_group_gives_up(redis_connection: RedisConnection) -> None:
    deadlines = DeadlinesConfig(lease_s=0.1, weight_join_s=0.5)
    assert rejoin_deadline_s(deadlines) == pytest.approx(0.9)

    async def scenario() -> None:
        bench = Bench(redis_connection, "follow-outside", deadlines)
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        await asyncio.sleep(2.0)  # it has not been in a group yet: how long that takes is the learner's deadline
        assert not following.done()
        bench.membership.announce(bench.rendezvous(1, replica_id="rollout-7"))
        with pytest.raises(WeightSyncError, match="replica rollout-0 was left out of the process group for 1 s"):
            await asyncio.wait_for(following, 10)

    asyncio.run(scenario())


@pytest.mark.parametrize(("logp", "gap"), [((-1.0, -2.0), "inf"), ((float("nan"),), "inf"), ((-1.5,), "0.5")])
def test_weights_that_the_probe_does_not_prove_are_confirmed_and_not_sampled_from(
    redis_connection: RedisConnection, logp: tuple[float, ...], gap: str
) -> None:
    class Differing(FakeEngine):
        async def probe(self, token_ids: Sequence[int], deadline: Deadline) -> list[float]:
            return list(logp)

    async def scenario() -> None:
        bench = Bench(redis_connection, f"follow-gap-{logp}", engine=Differing())
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        bench.membership.announce(bench.rendezvous(1))
        await bench.confirmed()
        bench.membership.announce(bench.manifest(1, version=3))
        found = (await bench.confirmed()).gap
        assert found == Gap(float(gap), float(gap), float(gap))
        assert not bench.follower.ready.is_set()
        bench.stopped = True
        await following

    asyncio.run(scenario())


def test_the_next_generation_ends_what_hangs_in_the_one_before(redis_connection: RedisConnection) -> None:
    class Hanging(FakeEngine):
        async def join(self, rendezvous: Rendezvous, replica_id: str) -> None:
            if rendezvous.pg_generation == 1:
                await asyncio.sleep(60)
            await super().join(rendezvous, replica_id)

        async def stage_and_swap(
            self, manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
        ) -> SwapReport:
            if manifest.pg_generation == 2:
                await asyncio.sleep(60)
            return await super().stage_and_swap(manifest, deadline, offer)

    async def scenario() -> None:
        bench = Bench(redis_connection, "follow-hanging", engine=Hanging())
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        bench.membership.announce(bench.rendezvous(1))
        await asyncio.sleep(0.2)
        bench.membership.announce(bench.rendezvous(2))
        assert (await bench.confirmed()).pg_generation == 2
        bench.membership.announce(bench.manifest(2, version=3))
        await asyncio.sleep(0.2)
        bench.membership.announce(bench.rendezvous(3))
        assert (await bench.confirmed()).pg_generation == 3
        bench.membership.announce(bench.manifest(3, version=4))
        assert (await bench.confirmed()).policy_version == 4
        assert bench.follower.ready.is_set()
        bench.stopped = True
        await following

    asyncio.run(scenario())


def test_what_is_announced_again_is_confirmed_again_and_not_done_again(redis_connection: RedisConnection) -> None:
    async def scenario() -> None:
        bench = Bench(redis_connection, "follow-again")
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        for message, phase in ((bench.rendezvous(1), "joined"), (bench.manifest(1, version=3), "swapped")):
            for _ in range(2):
                bench.membership.announce(message)
                assert (await bench.confirmed()).phase == phase
        assert len(bench.engine.joined) == len(bench.engine.swapped) == 1
        bench.stopped = True
        await following

    asyncio.run(scenario())


def test_a_replica_that_was_fenced_takes_no_prompts_until_it_has_proved_its_weights(
    redis_connection: RedisConnection,
) -> None:
    """With the learner's server, tests/learner/publish shows that it fetches what it lacks."""

    async def scenario() -> None:
        bench = Bench(redis_connection, "follow-fenced")
        following = asyncio.create_task(bench.follower.run(lambda: bench.stopped))
        bench.membership.announce(bench.rendezvous(1))
        await bench.confirmed()
        bench.membership.announce(bench.manifest(1, version=3))
        await bench.confirmed()
        await bench.follower.fence()
        assert not bench.follower.ready.is_set()
        assert bench.follower.pg_generation is None
        bench.membership.announce(bench.rendezvous(2))
        await bench.confirmed()
        assert not bench.follower.ready.is_set()
        bench.membership.announce(bench.manifest(2, version=4))
        await bench.confirmed()
        assert bench.follower.ready.is_set()
        bench.stopped = True
        await following

    asyncio.run(scenario())
