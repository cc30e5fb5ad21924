"""Queue depths reach the metrics page from a real server, and are unknown while it does not answer."""

import math
import time
import uuid
from collections.abc import Callable

from prometheus_client import REGISTRY

from learner.intake.depths import StreamDepths
from services.errors import StreamError
from services.streams.names import PROMPTS, SCORED
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.streams.stream import StreamDepth


def depths(stream: str) -> tuple[float | None, float | None]:
    """Waiting and pending groups, as a scrape sees them."""
    labels = {"stream": stream}
    return (
        REGISTRY.get_sample_value("ratchet_stream_waiting_groups", labels),
        REGISTRY.get_sample_value("ratchet_stream_pending_groups", labels),
    )


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end, "this did not come about in time"
        time.sleep(0.01)


def test_what_waits_and_what_is_claimed_is_seen_on_every_stream(redis_connection: RedisConnection) -> None:
    run = f"depths-{uuid.uuid4().hex[:8]}"

    def stream(name: str, consumer: str = "learner") -> RedisStream:
        return RedisStream(redis_connection, run, name, consumer, 60.0)

    names = [f"{run}-{name}" for name in ("prompts", "scored")]
    watched = StreamDepths([stream(name) for name in names], every_s=0.05)
    until(lambda: [depths(name) for name in names] == [(0, 0), (0, 0)])  # streams that nobody has written to
    issued = RedisIssueLog(redis_connection, stream(names[0]))
    for number in range(3):
        issued.issue(number, b"prompt")
    until(lambda: depths(names[0]) == (3, 0))
    age_s = REGISTRY.get_sample_value("ratchet_stream_oldest_age_seconds", {"stream": names[0]})
    assert age_s is not None
    assert 0 <= age_s < 30
    until(lambda: (REGISTRY.get_sample_value("ratchet_stream_oldest_age_seconds", {"stream": names[0]}) or 0) > age_s)
    replica = stream(names[0], "rollout-0")
    claims = replica.claim(2, 1.0)
    until(lambda: depths(names[0]) == (1, 2))
    replica.hand_over(claims[0], stream(names[1]), b"scored")
    until(lambda: [depths(name) for name in names] == [(1, 1), (1, 0)])
    assert watched.latest == {names[0]: 2, names[1]: 1}
    watched.close()
    replica.acknowledge(claims[1:])
    time.sleep(0.2)
    assert depths(names[0]) == (1, 1)  # nobody looks any more


class Away:
    """A stream whose server comes and goes."""

    name = f"away-{uuid.uuid4().hex[:8]}"

    def __init__(self) -> None:
        self.is_there = True

    def depth(self) -> StreamDepth:
        if not self.is_there:
            raise StreamError("the server is away")
        return StreamDepth(5, 2)


def test_while_the_server_is_away_the_depth_is_not_a_number_and_then_it_is_again() -> None:
    stream = Away()
    watched = StreamDepths([stream], every_s=0.02)  # type: ignore[list-item]
    until(lambda: depths(stream.name) == (5, 2))
    stream.is_there = False
    until(lambda: all(value is not None and math.isnan(value) for value in depths(stream.name)))
    stream.is_there = True
    until(lambda: depths(stream.name) == (5, 2))
    watched.close()


def test_a_server_that_hangs_holds_up_neither_the_start_nor_the_end() -> None:
    class Hanging(Away):
        def depth(self) -> StreamDepth:
            time.sleep(1.0)
            return StreamDepth(0, 0)

    begun = time.monotonic()
    StreamDepths([Hanging()]).close()  # type: ignore[list-item]
    assert time.monotonic() - begun < 0.5


def test_what_the_learner_holds_for_its_next_checkpoint_is_not_said_to_wait(redis_connection: RedisConnection) -> None:
    run = f"depths-{uuid.uuid4().hex[:8]}"
    scored = RedisStream(redis_connection, run, SCORED, "learner", 60.0)
    prompts = RedisStream(redis_connection, run, PROMPTS, "rollout-0", 60.0)
    issued = RedisIssueLog(redis_connection, prompts)
    for number in range(3):
        issued.issue(number, b"prompt")
    for claim in prompts.claim(3, 1.0):
        prompts.hand_over(claim, scored, b"scored")
    scored.claim(2, 1.0)
    watched = StreamDepths([prompts, scored], every_s=0.05)
    until(lambda: watched.latest == {PROMPTS: 0, SCORED: 1})
    watched.close()
