"""What tests of every room may ask for."""

from collections.abc import Iterator

import pytest

from services.redis_connection import RedisConnection
from services.redis_server import RedisServer


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
