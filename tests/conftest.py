"""What tests of every room may ask for, and which of them may run at the same time."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.redis_connection import RedisConnection
from services.redis_server import RedisServer
from services.supervisor import LAUNCHER_VARIABLES

SYSTEM_TESTS = Path(__file__).parent / "system"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `make test` two processes share the tests. A file stays in one of them, and so do the whole-system tests, each
    of which fills the machine by itself: they come first, because nothing else takes as long as they do together."""
    items.sort(key=lambda item: not item.path.is_relative_to(SYSTEM_TESTS))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("system" if item.path.is_relative_to(SYSTEM_TESTS) else str(item.path)))


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
