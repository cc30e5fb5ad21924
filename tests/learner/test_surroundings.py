"""Redis and the disk say how full they are, and nothing is claimed of either while it does not answer."""

import math
import shutil
from pathlib import Path

from prometheus_client import REGISTRY

from learner.surroundings import IdleConsumers, look_at_disk, look_at_redis
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream


def sample(name: str) -> float:
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value


def test_the_memory_of_redis_is_that_of_the_server(redis_connection: RedisConnection) -> None:
    look_at_redis(redis_connection)
    assert 0 < sample("ratchet_redis_used_memory_bytes") < sample("ratchet_redis_memory_limit_bytes")


def test_a_server_that_is_away_has_no_figures() -> None:
    look_at_redis(RedisConnection("redis://127.0.0.1:1/0", deadline_s=0.05))
    assert math.isnan(sample("ratchet_redis_used_memory_bytes"))
    assert math.isnan(sample("ratchet_redis_memory_limit_bytes"))


def test_the_disk_is_that_of_the_run_folder(tmp_path: Path) -> None:
    look_at_disk(tmp_path)
    assert sample("ratchet_learner_disk_size_bytes") == shutil.disk_usage(tmp_path).total
    assert 0 < sample("ratchet_learner_disk_free_bytes") <= sample("ratchet_learner_disk_size_bytes")
    look_at_disk(tmp_path / "gone")
    assert math.isnan(sample("ratchet_learner_disk_free_bytes"))


def test_idle_consumers_are_looked_for_now_and_then_and_a_server_that_is_away_is_no_fault(
    redis_connection: RedisConnection,
) -> None:
    stream = RedisStream(redis_connection, "surroundings", "prompts", "a", 60)
    log = RedisIssueLog(redis_connection, stream)
    rarely = IdleConsumers([stream], idle_s=0.0)
    for consumers in (0, 1):
        log.issue_again(b"x")
        stream.acknowledge(stream.claim(1, 0))
        assert len(redis_connection.execute("XINFO", "CONSUMERS", stream.key, "workers")) == 1
        rarely.look()
        assert len(redis_connection.execute("XINFO", "CONSUMERS", stream.key, "workers")) == consumers
    away = RedisStream(RedisConnection("redis://127.0.0.1:1/0", deadline_s=0.05), "r", "prompts", "a", 60)
    IdleConsumers([away]).look()
