"""The publisher's thread: every version arrives, a wait for it is visible, and what ends the thread reaches the loop."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from services.config import RunConfig
from services.errors import DeadlineExceeded
from services.streams.redis_connection import RedisConnection
from tests.learner.publish.control_plane import Learner, Replica, until


def test_every_version_reaches_the_replica_and_makes_it_ready(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica, senders = Replica(config, redis_connection, "rollout-0"), list[int]()
    learner.channel.before_send = lambda: senders.append(threading.get_ident())
    for version in range(3):
        learner.publish(version)
        learner.publisher.wait()
    assert replica.engine.policy_version == 2
    assert replica.follower is not None
    assert replica.follower.ready.is_set()
    assert [report.policy_version for report in learner.reports] == [0, 1, 2]
    assert len({report.pg_generation for report in learner.reports}) == 1
    until(lambda: len(senders) == 3)  # the replica here waits for no bytes
    assert len(set(senders)) == 1, "each thread that has sent over gloo leaves memory behind"
    replica.leave()


def test_a_step_does_not_wait_for_a_version_on_its_way_and_the_newest_takes_the_place_of_those_that_wait(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    learner.publish(0)
    learner.publisher.wait()
    go = threading.Event()
    learner.channel.before_send = go.wait
    learner.channel.is_sending = False
    learner.publish(1)
    until(lambda: learner.channel.is_sending)
    begun_s = time.monotonic()
    for version in range(2, 40):
        learner.publish(version)
    assert time.monotonic() - begun_s < 1.0
    assert learner.publisher.confirmed_version == 0  # admission counts from it
    go.set()
    learner.publisher.wait()
    assert [report.policy_version for report in learner.reports] == [0, 1, 39]
    assert len(learner.pool) <= 2
    replica.leave()


def test_closing_in_the_middle_of_a_transfer_does_not_wait_for_it(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    go = threading.Event()
    learner.channel.before_send = go.wait
    learner.publish(0)
    until(lambda: learner.channel.is_sending)
    begun_s = time.monotonic()
    learner.publisher.close()
    assert time.monotonic() - begun_s < 2.0
    assert not any(thread.name == "publisher" for thread in threading.enumerate())
    go.set()
    replica.leave()


def test_a_run_without_replicas_ends_at_its_deadline(learner: Learner) -> None:
    learner.publish(0)
    with pytest.raises(DeadlineExceeded, match="a rollout replica to register"):
        learner.publisher.wait()


def waits_in_progress(awaiting: str) -> float:
    return REGISTRY.get_sample_value("ratchet_waiting", {"room": "learner", "awaiting": awaiting}) or 0.0


def seconds_waited() -> float:
    labels = {"room": "learner", "awaiting": "weight confirmations"}
    return REGISTRY.get_sample_value("ratchet_wait_seconds_total", labels) or 0.0


def test_a_wait_for_a_replica_that_is_late_shows_while_it_lasts(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    learner.publish(0)
    with ThreadPoolExecutor(1) as training_loop:
        waiting = training_loop.submit(learner.publisher.wait)
        until(lambda: waits_in_progress("weight confirmations") == 1)
        before = seconds_waited()
        until(lambda: seconds_waited() > before + 0.2)
        assert learner.publisher.confirmed_version is None
        replica = Replica(config, redis_connection, "rollout-0")
        waiting.result(timeout=10)
    assert waits_in_progress("weight confirmations") == 0
    assert learner.publisher.confirmed_version == 0
    replica.leave()


def test_what_ended_the_thread_is_raised_wherever_the_loop_asks(learner: Learner) -> None:
    learner.publish(0)
    with pytest.raises(DeadlineExceeded):
        learner.publisher.wait()
    with pytest.raises(DeadlineExceeded):
        learner.publisher.should_stop()
    with pytest.raises(DeadlineExceeded):
        learner.publish(1)


def test_closing_ends_the_thread_and_leaves_the_group(
    config: RunConfig, redis_connection: RedisConnection, learner: Learner
) -> None:
    replica = Replica(config, redis_connection, "rollout-0")
    learner.publish(0)
    learner.publisher.wait()
    learner.publisher.close()
    assert learner.channel.closed
    assert not any(thread.name == "publisher" for thread in threading.enumerate())
    replica.leave()
