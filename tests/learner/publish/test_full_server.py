"""A run keeps its replicas on a server whose memory is full."""

import time
from pathlib import Path

from services.command.redis_server import RedisServer
from services.config import RunConfig
from services.streams.redis_connection import RedisConnection
from tests.learner.publish.control_plane import Learner, Replica


def test_leases_are_renewed_and_versions_arrive_while_the_server_is_full(config: RunConfig, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        connection = RedisConnection(server.url, deadline_s=5.0)
        connection.execute("CONFIG", "SET", "maxmemory", 1)
        learner = Learner(config, connection)
        replica = Replica(config, connection, "rollout-0")
        end_s = time.monotonic() + 3 * config.deadlines.lease_s
        version = 0
        while time.monotonic() < end_s:
            learner.publish(version)
            learner.publisher.wait()
            assert replica.engine.policy_version == version
            version += 1
            time.sleep(0.2)
        assert version > 1
        assert learner.lost == []
        learner.publisher.close()
        replica.leave()
        connection.close()
