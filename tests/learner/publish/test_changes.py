"""When the learner sends what changed and when it sends everything, as the publisher decides it, over a real control plane."""

from collections.abc import Iterator

import pytest
import torch
from prometheus_client import REGISTRY

from learner.publish.kept_buckets import BucketPool
from services.config import RunConfig
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from tests.learner.publish.control_plane import CPU, Learner, Replica, until

VALUES = 200_000


class Sparse(Learner):
    """A learner whose versions differ in a hundred values each."""

    def __init__(self, config: RunConfig, connection: RedisConnection) -> None:
        super().__init__(config, connection)
        self.pool = BucketPool([("weight", torch.empty(VALUES, device="meta"))], 1, CPU)
        self._weight = torch.zeros(VALUES)

    def step(self, policy_version: int) -> None:
        snapshot = self.take(policy_version)
        self._weight[100 * policy_version : 100 * (policy_version + 1)] = 1.0
        snapshot.flat[0].view(torch.float32).copy_(self._weight)
        self.publisher.publish(snapshot)
        self.publisher.wait()


@pytest.fixture
def learner(config: RunConfig, redis_connection: RedisConnection) -> Iterator[Learner]:
    content = config.model_dump()
    content["weights"]["delta"] = True
    learner = Sparse(RunConfig.model_validate(content), redis_connection)
    yield learner
    learner.publisher.close()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"ratchet_learner_{name}_total", labels) or 0.0


def test_what_changed_since_the_version_proved_last_is_sent_once_there_is_one(
    config: RunConfig, redis_connection: RedisConnection, learner: Sparse
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    whole, delta = counted("weight_bytes", form="whole"), counted("weight_bytes", form="delta")
    for version in range(5):
        learner.step(version)
    first, *later = learner.channel.sent_bytes
    assert first == 4 * VALUES
    assert len(later) == 4
    assert max(later) < 1000
    assert [manifest.deltas != () for manifest in replica.engine.swapped] == [False, True, True, True, True]
    assert counted("weight_bytes", form="whole") == whole + first
    assert counted("weight_bytes", form="delta") == delta + sum(later)
    assert len(learner.pool) == 2  # the one proved last, and the one that is sent
    replica.leave()


def test_a_newcomer_fetches_alone_and_the_next_version_goes_to_both_as_what_changed(
    config: RunConfig, redis_connection: RedisConnection, learner: Sparse
) -> None:
    first = Replica(config, redis_connection, "rollout-0")
    learner.step(0)
    second = Replica(config, redis_connection, "rollout-1")
    until(lambda: second.engine.policy_version == 0)
    learner.step(1)
    assert learner.channel.sent_bytes[1] < 1000
    assert [each.engine.policy_version for each in (first, second)] == [1, 1]
    first.leave()
    second.leave()


def test_a_newcomer_that_has_proved_nothing_makes_a_broadcast_whole(
    config: RunConfig, redis_connection: RedisConnection, learner: Sparse
) -> None:
    first = Replica(config, redis_connection, "rollout-0")
    learner.step(0)
    second = Replica(config, redis_connection, "rollout-1")
    second.engine.refuse_transfers = 1000  # so that it has proved nothing by the time of the next version
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    before = counted("delta_fallbacks", reason="member_without_base")
    snapshot = learner.take(1)
    snapshot.flat[0].view(torch.float32).copy_(torch.zeros(VALUES))
    learner.publisher.publish(snapshot)
    until(lambda: counted("delta_fallbacks", reason="member_without_base") == before + 1)
    second.engine.refuse_transfers = 0
    first.leave()
    second.leave()


def test_after_a_failed_broadcast_the_next_one_is_whole(
    config: RunConfig, redis_connection: RedisConnection, learner: Sparse
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    learner.step(0)
    learner.channel.fail_next = 1
    learner.step(1)
    until(lambda: learner.channel.sent_bytes == [4 * VALUES, 4 * VALUES])  # the replica here waits for no bytes
    learner.step(2)
    until(lambda: len(learner.channel.sent_bytes) == 3)
    assert learner.channel.sent_bytes[2] < 1000
    replica.leave()


def test_without_the_setting_every_version_is_whole_and_no_base_is_kept(
    config: RunConfig, redis_connection: RedisConnection
) -> None:
    plain = Sparse(config, redis_connection)
    replica = Replica(config, redis_connection, "rollout-0")
    for version in range(4):
        plain.step(version)
    assert plain.channel.sent_bytes == [4 * VALUES] * 4
    assert len(plain.pool) == 1
    plain.publisher.close()
    replica.leave()
