"""With weights.type = "http" every replica fetches every version from the learner's server and proves it; nobody meets."""

import asyncio
import time

from rollout.engine import SwapReport
from services.clock import Deadline
from services.config import RunConfig
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.weights import WeightManifest, WeightOffer
from tests.learner.publish.control_plane import Learner, Replica, until


def test_every_version_is_fetched_by_every_replica(config: RunConfig, redis_connection: RedisConnection) -> None:
    config = over_http(config)
    learner = Learner(config, redis_connection)
    replicas = [Replica(config, redis_connection, f"rollout-{number}") for number in range(2)]
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    for version in range(3):
        learner.publish(version)
        learner.publisher.wait()
        assert [replica.engine.policy_version for replica in replicas] == [version, version]
    assert [replica.engine.fetched for replica in replicas] == [[0, 1, 2], [0, 1, 2]]
    assert [report.replicas for report in learner.reports] == [2, 2, 2]
    assert (learner.channel.formed, learner.channel.sent) == ([], [])
    assert all(replica.engine.joined == [] for replica in replicas)
    learner.publisher.close()
    for replica in replicas:
        replica.leave()


def test_one_that_is_far_away_fetches_at_its_own_pace_and_the_steps_go_on(
    config: RunConfig, redis_connection: RedisConnection
) -> None:
    config = over_http(config)
    learner = Learner(config, redis_connection)
    near, far = (Replica(config, redis_connection, f"rollout-{number}") for number in range(2))
    until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
    learner.publish(0)
    learner.publisher.wait()
    fetch = far.engine.stage_and_swap

    async def slowly(manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None) -> SwapReport:
        await asyncio.sleep(1.5)
        return await fetch(manifest, deadline, offer)

    far.engine.stage_and_swap = slowly  # type: ignore[method-assign]
    begun_s = time.monotonic()
    learner.publish(1)
    until(lambda: learner.publisher.confirmed_version == 1)
    assert time.monotonic() - begun_s < 1.5  # patience with the far one had run out
    assert (near.engine.policy_version, far.engine.policy_version) == (1, 0)
    until(lambda: far.engine.policy_version == 1)
    assert far.engine.fetched == [0, 1]
    learner.publisher.close()
    near.leave()
    far.leave()


def over_http(config: RunConfig) -> RunConfig:
    content = config.model_dump()
    content["weights"]["type"] = "http"
    content["deadlines"]["weight_patience_s"] = 0.3
    return RunConfig.model_validate(content)
