"""What tests of every room may ask for, and which of them may run at the same time."""

import gc
import importlib.metadata
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from services.command.redis_server import RedisServer
from services.command.supervisor import LAUNCHER_VARIABLES
from services.streams.redis_connection import RedisConnection

# Before torch is imported. Tests run beside each other, and a second thread of torch then spins where it should wait: the same
# test takes twice the processor time. What a run is set to use it says itself.
os.environ["OMP_NUM_THREADS"] = "1"
hypothesis.settings.register_profile("busy", deadline=None)  # a busy machine is not a failure
hypothesis.settings.load_profile("busy")


TOGETHER = {
    "tests/system/": 0,
    "tests/benchmarks/": 1,
    "tests/chaos/": 1,
    "tests/learner/engine/": 2,
}
"""Folders that stay in one process, by the number of their share. Those of the whole system fill the machine by themselves; the
others fork from a process that has imported everything (forking.py), which is there once for each that runs them."""


def share(file: str) -> int | None:
    return next((number for folder, number in TOGETHER.items() if file.startswith(folder)), None)


class Shares(LoadScopeScheduling):
    """A file stays in one process, and so does a share."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        number = share(file)
        return file if number is None else f"share {number}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares:
    return Shares(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The shares first: nothing takes as long as they do."""

    def place(item: pytest.Item) -> int:
        number = share(item.nodeid)
        return len(TOGETHER) if number is None else number

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What the tests have imported stays: the collector need not look through it each time that a test or pytest calls it."""
    gc.collect()
    gc.freeze()


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


version_once = cache(importlib.metadata.version)
requires_once = cache(importlib.metadata.requires)


@pytest.fixture
def metadata_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed stays as it is: its metadata, hundreds of files that take seconds to read, is read by the first test."""
    monkeypatch.setattr(importlib.metadata, "version", version_once)
    monkeypatch.setattr(importlib.metadata, "requires", requires_once)


@pytest.fixture(autouse=True)
def _no_rank_is_left_behind() -> Iterator[None]:
    """An engine in the process of the tests makes it rank 0 of one; what later tests start must not inherit that."""
    yield
    for name in LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
