"""A run of its own for each test, and the learner's end of its control plane."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.config import RunConfig
from services.config.load import load
from services.streams.redis_connection import RedisConnection
from tests.learner.publish.control_plane import Learner

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


@pytest.fixture
def learner(config: RunConfig, redis_connection: RedisConnection) -> Iterator[Learner]:
    learner = Learner(config, redis_connection)
    yield learner
    learner.publisher.close()
