"""Replicas join, leave, fail and prove what they hold, and the group goes on with those that can."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import pytest
from prometheus_client import REGISTRY

from learner.publish.proof import Unequal
from rollout.engine import SwapReport
from services.clock import Deadline
from services.config import RunConfig
from services.errors import WeightSyncError
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer
from tests.learner.publish.control_plane import Learner, Replica, lease, until


def test_a_replica_that_joins_later_gets_the_version_that_holds(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    first = Replica(config, redis_connection, "rollout-0")
    learner.publish(7)
    learner.publisher.wait()
    second = Replica(config, redis_connection, "rollout-1")
    until(lambda: second.follower is not None and second.follower.ready.is_set())
    assert second.engine.policy_version == 7
    assert second.engine.fetched == [7]  # by itself: nobody else was disturbed
    assert [meeting.size for meeting in learner.channel.formed] == [2]
    until(lambda: REGISTRY.get_sample_value("ratchet_learner_live_replicas", {"state": "in_step"}) == 2)
    learner.publish(8)
    learner.publisher.wait()
    assert (first.engine.policy_version, second.engine.policy_version) == (8, 8)
    assert learner.channel.formed[-1].size == 3
    assert learner.channel.formed[-1].pg_generation > learner.channel.formed[0].pg_generation
    first.leave()
    second.leave()


def test_live_replicas_are_counted_by_what_became_of_the_last_broadcast(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    def counted() -> dict[str, float | None]:
        states = ("in_step", "behind", "left_out")
        return {s: REGISTRY.get_sample_value("ratchet_learner_live_replicas", {"state": s}) for s in states}

    replicas = [Replica(config, redis_connection, f"rollout-{i}") for i in range(2)]
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    learner.publish(0)
    learner.publisher.wait()
    until(lambda: counted() == {"in_step": 2, "behind": 0, "left_out": 0})
    assert REGISTRY.get_sample_value("ratchet_learner_replicas") == 2
    for replica in replicas:
        replica.leave()
    until(lambda: counted() == {"in_step": 0, "behind": 0, "left_out": 0})
    assert REGISTRY.get_sample_value("ratchet_learner_replicas") == 0  # it stayed at the last generation's number


def test_training_goes_on_with_those_that_are_left(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    leaving, dying, staying = (Replica(config, redis_connection, f"rollout-{i}") for i in range(3))
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 3)
    learner.publish(0)
    learner.publisher.wait()
    leaving.leave()
    dying.die()
    learner.channel.fail_next = 1
    learner.publish(1)
    learner.publisher.wait()
    assert staying.engine.policy_version == 1
    assert learner.reports[-1].replicas == 1
    staying.leave()


def test_a_replica_that_holds_other_weights_ends_the_run_with_its_name(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")

    async def other_weights(token_ids: Sequence[int], deadline: Deadline) -> list[float]:
        return [-1.0, -2.7]

    replica.engine.probe = other_weights  # type: ignore[method-assign]
    learner.publish(0)
    with pytest.raises(Unequal, match=r"rollout-0 does not hold the learner's weights.*0\.7"):
        learner.publisher.wait()
    assert replica.follower is not None
    assert not replica.follower.ready.is_set()
    replica.leave()


@pytest.mark.parametrize(
    ("on_disk", "after", "said"),
    [
        (
            [-1.0, -2.5],
            [-1.0, -2.0],
            r"compute different log-probs from the same folder, model\.path = .*before any weights",
        ),
        ([-1.0, -2.0], [-1.0, -2.0005], r"weights did not find their places in the engine of replica rollout-0"),
        ([-1.0, float("nan")], [-1.0, -2.0], "compute different log-probs from the same folder"),
    ],
    ids=["other kernels", "other names", "not a number"],
)
def test_what_differs_at_the_first_swap_ends_the_run_with_what_it_means(
    config: RunConfig,
    redis_connection: RedisConnection,
    learner: Learner,
    on_disk: list[float],
    after: list[float],
    said: str,
) -> None:
    """The gap after the swap alone would be within the bound in the last two."""
    replica = Replica(config, redis_connection, "rollout-0")

    async def probe(token_ids: Sequence[int], deadline: Deadline) -> list[float]:
        return after if replica.engine.swapped else on_disk

    replica.engine.probe = probe  # type: ignore[method-assign]
    learner.publish(0, disk_logp=[-1.0, -2.0])
    with pytest.raises(Unequal, match=said):
        learner.publisher.wait()
    replica.leave()


def test_what_the_kernels_differ_by_is_measured_at_the_first_swap_of_each_replica_and_reported(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")

    async def probe(token_ids: Sequence[int], deadline: Deadline) -> list[float]:
        return [-1.0, -2.0002]

    replica.engine.probe = probe  # type: ignore[method-assign]
    for version in (7, 8):  # a run that is resumed: the weights on disk are not those that are sent
        learner.publish(version, disk_logp=[-1.0, -2.0])
        learner.publisher.wait()
    assert [report.kernel_gap_nats for report in learner.reports] == pytest.approx([2e-4, 2e-4])
    assert learner.publisher.kernel_gap_nats == pytest.approx(2e-4)
    replica.leave()


def test_a_replica_that_refuses_is_left_out_and_the_others_go_on(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (Replica(config, redis_connection, f"rollout-{i}") for i in range(2))
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    bad.engine.refuse_transfers = 10**6
    caplog.set_level(logging.WARNING, "ratchet.learner")
    refused: list[str] = []
    for version in range(2000):  # for some 3 s, in which it is tried again and again
        learner.publish(version)
        learner.publisher.wait()
        assert good.engine.policy_version == version
        refused = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
        if len(refused) == 3:
            break
        time.sleep(0.025)
    assert version > 5
    assert all("Left out: rollout-1 for" in line for line in refused)
    assert [line.rpartition(" for ")[2] for line in refused] == ["1 s", "2 s", "4 s"]
    bad.engine.refuse_transfers = 0
    until(lambda: bad.engine.policy_version == version)  # by itself

    def is_taken_in() -> bool:
        learner.publish(learner.reports[-1].policy_version + 1)
        learner.publisher.wait()
        return learner.reports[-1].replicas == 2

    until(is_taken_in, 20.0)
    learner.publisher.close()
    good.leave()
    bad.leave()


def test_a_replica_that_says_nothing_is_blamed_and_not_those_that_fail_with_it(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (Replica(config, redis_connection, f"rollout-{i}") for i in range(2))
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    learner.publish(0)
    learner.publisher.wait()

    async def hang(manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None) -> SwapReport:
        while not bad.stopping.is_set():
            await asyncio.sleep(0.05)
        raise WeightSyncError("this replica ends")

    bad.engine.stage_and_swap = hang  # type: ignore[method-assign]
    good.engine.refuse_transfers = 1  # as when the bytes come through the one that hangs
    learner.publish(1)
    learner.publisher.wait()
    assert good.engine.policy_version == 1
    assert "Left out: rollout-1 for 1 s" in caplog.text
    assert "rollout-0 for" not in caplog.text
    learner.publisher.close()
    good.leave()
    bad.leave()


def test_where_nobody_says_what_went_wrong_all_are_invited_again_and_the_meeting_shows_who_died(
    config: RunConfig,
    redis_connection: RedisConnection,
    learner: Learner,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("learner.publish.roll_call.LAST_WORDS_S", 0.2)
    good, dying = (Replica(config, redis_connection, f"rollout-{i}") for i in range(2))
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    learner.publish(0)
    learner.publisher.wait()
    take_in, slow = good.engine.stage_and_swap, learner.channel.formed[-1].pg_generation

    async def notices_late(
        manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
    ) -> SwapReport:
        if manifest.pg_generation == slow:
            await asyncio.sleep(600)
        return await take_in(manifest, deadline, offer)

    good.engine.stage_and_swap = notices_late  # type: ignore[method-assign]
    dying.die()
    words = lease("rollout-1", "1", 0, ready=True, pg_generation=slow)
    Membership(redis_connection, config.name, 1.0).register(words)  # its last
    learner.channel.fail_next = 1
    begun_s = time.monotonic()
    learner.publish(1)
    until(lambda: good.engine.policy_version == 1)
    assert time.monotonic() - begun_s < 4.0  # the lease of the one that died, and two meetings
    assert "Left out: nobody; all are invited again" in caplog.text
    assert "rollout-0 for" not in caplog.text
    learner.publisher.close()
    good.leave()


def test_a_member_that_dies_before_it_comes_to_the_meeting_is_left_out_when_it_does_not_renew_its_lease(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    good = Replica(config, redis_connection, "rollout-0")
    membership = Membership(redis_connection, config.name, 1.0)
    until(lambda: len(membership.live()) == 1)
    membership.register(lease("rollout-1", "1"))  # its last
    form, given_up = learner.channel.form, threading.Event()
    learner.channel.close = given_up.set  # type: ignore[method-assign]

    def meet(rendezvous: Rendezvous, deadline: Deadline, arrived: Callable[[int], None]) -> None:
        if "rollout-1" not in rendezvous.first_ranks:
            form(rendezvous, deadline, arrived)
            return
        arrived(rendezvous.first_ranks["rollout-0"])
        assert given_up.wait(10)
        raise WeightSyncError("rank 0 gave up waiting for all to come")

    learner.channel.form = meet  # type: ignore[method-assign]
    begun_s = time.monotonic()
    learner.publish(0)
    until(lambda: good.engine.policy_version == 0)
    assert time.monotonic() - begun_s < 1.0 + 2.0
    said = r"no word of rollout-1 \(joined, generation 1\) and its lease (is gone|was not renewed)\. Left out: rollout-1 for 1 s"
    assert re.search(said, caplog.text)
    assert "rollout-1" in learner.lost, "what it has claimed goes to others"
    learner.publisher.close()
    good.leave()


def test_one_that_still_waits_for_a_broadcast_that_was_given_up_fetches_at_once(
    config: RunConfig, redis_connection: RedisConnection
) -> None:
    """A network that was cut does not say that nobody sends any more."""
    content = config.model_dump()
    content["deadlines"]["weight_patience_s"] = 0.3
    config = RunConfig.model_validate(content)
    learner = Learner(config, redis_connection)
    good, deaf = (Replica(config, redis_connection, f"rollout-{i}") for i in range(2))
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    learner.publish(0)
    learner.publisher.wait()
    take_in = deaf.engine.stage_and_swap

    async def hears_nothing(
        manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
    ) -> SwapReport:
        if offer is None:
            await asyncio.sleep(600)
        return await take_in(manifest, deadline, offer)

    deaf.engine.stage_and_swap = hears_nothing  # type: ignore[method-assign]
    learner.publish(1)
    until(lambda: deaf.engine.policy_version == 1, within_s=5.0)
    assert deaf.engine.fetched == [1]
    assert good.engine.fetched == []
    learner.publisher.close()
    good.leave()
    deaf.leave()


def test_what_fails_now_and_then_does_not_end_the_run(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    for version in range(4):
        learner.channel.fail_next = 1
        learner.publish(version)
        learner.publisher.wait()
    assert replica.engine.policy_version == 3
    replica.leave()


def test_what_fails_always_ends_the_run_with_its_cause(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    learner.channel.fail_next = 10**6
    learner.publish(0)
    with pytest.raises(WeightSyncError, match=r"no replica has taken the weights for \d+ s .*; last: a member is gone"):
        learner.publisher.wait()
    assert len(learner.channel.formed) < 6
    replica.leave()


def test_a_lease_of_another_version_is_named_once_and_passed_over(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    membership = Membership(redis_connection, config.name, 30.0)
    membership.register(lease("from-tomorrow", "1"))
    other = msgspec.msgpack.encode(("lease", 99, {"replica_id": "from-tomorrow"}))
    redis_connection.execute("HSET", f"ratchet:{config.name}:replicas", "from-tomorrow", other)
    replica = Replica(config, redis_connection, "rollout-0")
    for version in range(3):
        learner.publish(version)
        learner.publisher.wait()
    assert replica.engine.policy_version == 2
    assert caplog.text.count("the lease of replica from-tomorrow is ignored: expected lease schema 3") == 1
    assert [last.replica_id for last in membership.last_leases()] == ["rollout-0"]
    replica.leave()


def test_an_emptied_server_costs_a_line_and_generations_go_on(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    replicas = [Replica(config, redis_connection, f"rollout-{i}") for i in range(2)]
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    learner.publish(0)
    learner.publisher.wait()
    before = learner.channel.formed[-1].pg_generation
    redis_connection.execute("FLUSHALL")
    begun_s = time.monotonic()
    for version in (1, 2):
        learner.publish(version)
        learner.publisher.wait()
    assert time.monotonic() - begun_s < 5.0
    assert [replica.engine.policy_version for replica in replicas] == [2, 2]
    assert learner.channel.formed[-1].pg_generation >= before
    until(lambda: "Redis has lost its data" in caplog.text)
    assert caplog.text.count("Redis has lost its data") == 1
    replicas[0].die()
    until(lambda: set(learner.lost) == {"rollout-0"})
    learner.publish(3)
    learner.publisher.wait()
    assert learner.channel.formed[-1].pg_generation > before
    replicas[1].leave()


def test_a_learner_that_comes_back_to_an_emptied_server_forms_no_generation_that_was(
    config: RunConfig, redis_connection: RedisConnection
) -> None:
    """Nobody is left who knows the earlier ones but the checkpoint."""
    learner = Learner(config, redis_connection, generation=7)
    assert learner.publisher.generation == 7
    replica = Replica(config, redis_connection, "rollout-0")
    learner.publish(0)
    learner.publisher.wait()
    assert learner.channel.formed[-1].pg_generation == 8
    until(lambda: learner.publisher.generation == 8)
    replica.leave()
    learner.publisher.close()
