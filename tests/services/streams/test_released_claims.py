"""What a consumer had claimed that is lost goes to others at once, and crosses the stage once, whoever finishes it."""

import uuid

import pytest

from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream


class Bench:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._run = f"released-{uuid.uuid4().hex[:8]}"
        self.prompts = self.stream("prompts", "learner")
        self.log = RedisIssueLog(connection, self.prompts)
        self.results = self.stream("trajectories", "verifier")

    def stream(self, name: str, consumer: str) -> RedisStream:
        return RedisStream(self._connection, self._run, name, consumer, reclaim_idle_s=60.0)


@pytest.fixture
def bench(redis_connection: RedisConnection) -> Bench:
    return Bench(redis_connection)


def test_what_a_lost_consumer_held_is_claimed_by_others_at_once_and_its_delivery_counts(bench: Bench) -> None:
    suspended, other = bench.stream("prompts", "rollout-1"), bench.stream("prompts", "rollout-0")
    for number in range(3):
        bench.log.issue(number, b"%d" % number)
    assert len(suspended.claim(2, 0.0)) == 2
    bench.prompts.release_of("rollout-1")
    claimed = other.claim(8, 0.0)
    assert {(claim.payload, claim.deliveries) for claim in claimed} == {(b"0", 2), (b"1", 2), (b"2", 1)}


@pytest.mark.parametrize("first", ["the one that took it over", "the one that was suspended"])
def test_what_a_suspended_consumer_finishes_under_its_lost_lease_is_not_counted_twice(bench: Bench, first: str) -> None:
    suspended, other = bench.stream("prompts", "rollout-1"), bench.stream("prompts", "rollout-0")
    bench.log.issue(0, b"p")
    (before,) = suspended.claim(1, 0.0)
    bench.prompts.release_of("rollout-1")
    (after,) = other.claim(1, 0.0)
    turns = [(other, after, b"other"), (suspended, before, b"suspended")]
    if first == "the one that was suspended":
        turns.reverse()
    assert [stream.hand_over(claim, bench.results, payload) for stream, claim, payload in turns] == [True, False]
    assert [claim.payload for claim in bench.results.claim(8, 0.0)] == [turns[0][2]]
    assert suspended.renew([before]) == [before]
    assert bench.prompts.depth().pending == 0


def test_a_stream_that_is_gone_has_nothing_to_give_back(bench: Bench) -> None:
    bench.prompts.release_of("rollout-1")
    assert bench.stream("prompts", "rollout-0").claim(8, 0.0) == []
