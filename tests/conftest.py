"""What tests of every room may ask for."""

import os
from collections.abc import Iterator

import pytest

from services.redis_connection import RedisConnection
from services.redis_server import RedisServer
from services.supervisor import LAUNCHER_VARIABLES


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server for the whole session: give every test a run name of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_connection(redis_url: str) -> Iterator[RedisConnection]:
    connection = RedisConnection(redis_url, deadline_s=10.0)
    yield connection
    connection.close()


@pytest.fixture(autouse=True)
def _no_rank_is_left_behind() -> Iterator[None]:
    """An engine in the process of the tests makes it rank 0 of one; what later tests start must not inherit that."""
    yield
    for name in LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
