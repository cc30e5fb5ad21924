"""Redis and the disk say how full they are, and nothing is claimed of either while it does not answer."""

import math
import shutil
from pathlib import Path

from prometheus_client import REGISTRY

from learner.surroundings import look_at_disk, look_at_redis
from services.streams.redis_connection import RedisConnection


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
