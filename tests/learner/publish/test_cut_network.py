"""A replica whose network is cut is left behind when its lease ends, and comes back by itself; its process never stops."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import pytest
import torch

from rollout.replica import Replica as WholeReplica
from rollout.weights import fetch
from rollout.weights.fetch import Link, fetch_bucket, fetch_manifest
from services.clock import Deadline
from services.config import RunConfig
from services.streams.redis_connection import RedisConnection
from services.weights.buckets import check_digest, digest
from services.weights.membership import Membership
from services.wire.weights import WeightSource
from tests.fakes.cable import Cable
from tests.fakes.engine import FakeEngine
from tests.learner.publish.control_plane import Learner, Replica, until


@contextmanager
def serving(config: RunConfig, url: str, replica_id: str) -> Iterator[FakeEngine]:
    """A whole replica, fence and all, on a thread of its own."""
    engine, stop, loop = FakeEngine(), asyncio.Event(), asyncio.new_event_loop()
    replica = WholeReplica(config, engine, RedisConnection(url), replica_id=replica_id)
    thread = threading.Thread(target=lambda: loop.run_until_complete(replica.run(stop)))
    thread.start()
    try:
        yield engine
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_one_that_is_cut_off_holds_nobody_up_and_fetches_what_it_missed(
    config: RunConfig,
    redis_connection: RedisConnection,
    redis_url: str,
    learner: Learner,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = urlsplit(redis_url)
    near = Replica(config, redis_connection, "rollout-0")
    with Cable(unquote(address.path)) as cable:
        url = f"redis://:{address.password}@127.0.0.1:{cable.port}/0"
        with serving(config, url, "rollout-1") as engine:
            until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 2)
            learner.publish(0)
            learner.publisher.wait()
            assert engine.policy_version == 0
            cable.cut()
            begun_s = time.monotonic()
            learner.publish(1)
            until(lambda: learner.publisher.confirmed_version == 1)
            assert time.monotonic() - begun_s < 1.0 + 2.0  # its lease
            until(lambda: set(learner.lost) == {"rollout-1"})
            learner.publish(2)
            until(lambda: learner.publisher.confirmed_version == 2)
            assert near.engine.policy_version == 2
            assert engine.policy_version == 0
            until(lambda: len(Membership(redis_connection, config.name, 1.0).live()) == 1)  # its lease has ended
            cable.mend()
            until(lambda: engine.policy_version == 2)
            assert engine.fetched == [2]
            until(lambda: "was not heard of for longer than its lease" in caplog.text)

            def is_taken_in() -> bool:
                learner.publish(learner.reports[-1].policy_version + 1)
                learner.publisher.wait()
                return learner.reports[-1].replicas == 2

            until(is_taken_in)
            learner.publisher.close()
    near.leave()


def test_a_fetch_over_a_network_that_is_cut_goes_on_where_it_was(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "SILENCE_S", 0.3)
    monkeypatch.setattr(fetch, "PAUSE_S", 0.05)
    replica = Replica(config, redis_connection, "rollout-0")
    learner.publish(7)
    learner.publisher.wait()
    offered = Membership(redis_connection, config.name, 1.0).offered()
    assert offered is not None
    server = urlsplit(offered.source.url)
    with Cable((server.hostname or "", server.port or 0)) as cable:
        source = WeightSource(f"http://127.0.0.1:{cable.port}", offered.source.token)
        deadline = Deadline.after(20.0, "the test")
        manifest = fetch_manifest(source, deadline)
        flat = torch.zeros(manifest.buckets[0].size_bytes, dtype=torch.uint8)
        cable.cut()
        threading.Timer(1.0, cable.mend).start()
        begun_s = time.monotonic()
        with Link(source) as link:
            fetch_bucket(link, 7, 0, flat, deadline)
        assert 0.9 < time.monotonic() - begun_s < 10.0
        check_digest(manifest.buckets[0], digest(flat), "1 of 1")
    replica.leave()
