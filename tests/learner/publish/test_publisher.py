"""The two ends of the weight control plane, learner and replicas, over a real server: join, leave, fail, prove.

Bytes are moved by fakes here; that they arrive is shown by tests/services/weights and tests/rollout.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import torch

from learner.publish.publisher import SyncReport, WeightPublisher, snapshot
from rollout.engine import SwapReport
from rollout.weights.follower import WeightFollower
from services.clock import Deadline
from services.config import RunConfig
from services.config.load import load
from services.errors import DeadlineExceeded, WeightSyncError
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.membership import Lease
from services.wire.weights import Rendezvous, WeightManifest
from tests.fakes.engine import FakeEngine

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config() -> RunConfig:
    overrides = [
        f"name=control-{uuid.uuid4().hex[:8]}",
        "deadlines.lease_s=1.0",
        "deadlines.weight_join_s=3.0",
        "deadlines.weight_transfer_s=3.0",
        "deadlines.first_replica_s=5.0",
    ]
    return load(ROOT / "examples/addition/addition.toml", overrides)


class CountingChannel:
    """Moves nothing; fails when it is told to."""

    def __init__(self) -> None:
        self.formed: list[Rendezvous] = []
        self.sent: list[int] = []
        self.fail_next = 0

    def form(self, rendezvous: Rendezvous, deadline: Deadline) -> None:
        self.formed.append(rendezvous)

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[torch.Tensor], deadline: Deadline) -> None:
        if self.fail_next:
            self.fail_next -= 1
            raise WeightSyncError("a member is gone")
        self.sent.append(manifest.policy_version)

    def close(self) -> None: ...


def lease(replica_id: str, incarnation: str, policy_version: int = 0, ready: bool = False) -> Lease:
    return Lease(
        replica_id=replica_id,
        incarnation=incarnation,
        ranks=1,
        policy_version=policy_version,
        ready=ready,
        sampling_s=0.0,
        ready_s=0.0,
    )


class Replica:
    """A follower over a fake engine, with its lease, on a thread of its own."""

    def __init__(self, config: RunConfig, connection: RedisConnection, replica_id: str) -> None:
        self.engine, self.replica_id = FakeEngine(), replica_id
        self._config, self._membership = config, Membership(connection, config.name, config.deadlines.lease_s)
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
            transfer_s=3.0,
            max_gap_nats=self._config.max_gap_nats,
            excluded_s=30.0,
        )
        following = asyncio.create_task(self.follower.run(self.stopping.is_set))
        while not self.stopping.is_set():
            words = lease(self.replica_id, "1", self.engine.policy_version, self.follower.ready.is_set())
            await asyncio.to_thread(self._membership.register, words)
            await asyncio.sleep(0.2)
        await following

    def leave(self) -> None:
        self.stopping.set()
        self._thread.join()
        self._membership.leave(self.replica_id)

    def die(self) -> None:
        """Says nothing any more."""
        self.stopping.set()
        self._thread.join()


class Learner:
    """A publisher and what it reported."""

    def __init__(self, config: RunConfig, connection: RedisConnection) -> None:
        self.channel, self.reports = CountingChannel(), list[SyncReport]()
        membership = Membership(connection, config.name, config.deadlines.lease_s)
        self.publisher = WeightPublisher(
            config, membership, self.channel, ("127.0.0.1", 1), self.reports.append, stopping=lambda: False
        )

    def publish(self, policy_version: int) -> None:
        tensors = [("weight", torch.full((3,), float(policy_version)))]
        self.publisher.publish(snapshot(policy_version, tensors, 1, (1, 2, 3), [-1.0, -2.0]))


@pytest.fixture
def learner(config: RunConfig, redis_connection: RedisConnection) -> Iterator[Learner]:
    learner = Learner(config, redis_connection)
    yield learner
    learner.publisher.close()


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "this did not come about in time"
        time.sleep(0.02)


def test_every_version_reaches_the_replica_and_makes_it_ready(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    for version in range(3):
        learner.publish(version)
    learner.publisher.wait()
    assert replica.engine.policy_version == 2
    assert replica.follower is not None
    assert replica.follower.ready.is_set()
    assert [report.policy_version for report in learner.reports] == [0, 1, 2]
    assert len({report.pg_generation for report in learner.reports}) == 1
    replica.leave()


def test_a_replica_that_joins_later_gets_the_version_that_holds(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    first = Replica(config, redis_connection, "rollout-0")
    learner.publish(7)
    learner.publisher.wait()
    second = Replica(config, redis_connection, "rollout-1")
    until(lambda: second.engine.policy_version == 7)
    assert learner.channel.formed[-1].size == 3
    assert learner.channel.formed[-1].pg_generation > learner.channel.formed[0].pg_generation
    first.leave()
    second.leave()


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

    async def other_weights(token_ids: Sequence[int]) -> list[float]:
        return [-1.0, -2.7]

    replica.engine.probe = other_weights  # type: ignore[method-assign]
    learner.publish(0)
    with pytest.raises(WeightSyncError, match=r"rollout-0 does not hold the learner's weights.*0\.7"):
        learner.publisher.wait()
    assert replica.follower is not None
    assert not replica.follower.ready.is_set()
    replica.leave()


def test_a_replica_that_refuses_is_left_out_and_the_others_go_on(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (Replica(config, redis_connection, f"rollout-{i}") for i in range(2))
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    bad.engine.refuse_transfers = 10**6
    caplog.set_level(logging.WARNING, "ratchet.learner")
    for version in range(200):  # for some 5 s, in which it is tried again and again
        learner.publish(version)
        learner.publisher.wait()
        assert good.engine.policy_version == version
        time.sleep(0.025)
    refused = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert all("Left out: rollout-1 for" in line for line in refused)
    assert [line.rpartition(" for ")[2] for line in refused[:3]] == ["1 s", "2 s", "4 s"]
    bad.engine.refuse_transfers = 0
    until(lambda: bad.engine.policy_version == 199)
    until(lambda: learner.reports[-1].replicas == 2)
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

    async def hang(manifest: WeightManifest, deadline: Deadline) -> SwapReport:
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
    assert caplog.text.count("the lease of replica from-tomorrow is ignored: expected lease schema 2") == 1
    assert [last.replica_id for last in membership.last_leases()] == ["rollout-0"]
    replica.leave()


def test_a_run_without_replicas_ends_at_its_deadline(learner: Learner) -> None:
    learner.publish(0)
    with pytest.raises(DeadlineExceeded, match="a rollout replica to register"):
        learner.publisher.wait()
