"""What is left on the streams of a run's name, on a real server: taken over, issued again or refused."""

import uuid

import pytest

from learner.intake.ledger import Ledger
from learner.intake.leftovers import Leftovers, lost_groups
from services.errors import InputError
from services.run.made_of import MadeOf
from services.streams.names import DEAD, PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream, empty_queues
from services.wire.codec import encode
from services.wire.score import DeadGroup
from tests.learner.tiny import scored_group

MADE: MadeOf = {"seed": {"is": "0", "digest": "0"}}
OTHER: MadeOf = {"seed": {"is": "1", "digest": "1"}}


@pytest.fixture
def run() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def streams(redis_connection: RedisConnection, run: str) -> list[RedisStream]:
    return [RedisStream(redis_connection, run, name, "learner", 60.0) for name in (PROMPTS, TRAJECTORIES, SCORED, DEAD)]


def issue(connection: RedisConnection, stream: RedisStream, count: int) -> RedisIssueLog:
    log = RedisIssueLog(connection, stream)
    for number in range(count):
        log.issue(number, encode(scored_group(number, rewards=[1.0, 0.0]).group.prompt))
    return log


def test_groups_are_found_wherever_they_are(redis_connection: RedisConnection, streams: list[RedisStream]) -> None:
    prompts, trajectories, scored, dead = streams
    issue(redis_connection, prompts, 5)
    group = [scored_group(number, rewards=[1.0, 0.0]) for number in range(5)]
    claims = prompts.claim(4, 0.0)
    prompts.hand_over(claims[1], trajectories, encode(group[1].group))
    prompts.hand_over(claims[2], scored, encode(group[2]))
    buried = DeadGroup(prompt=group[3].group.prompt, group_id="train-3", stage="prompts", cause="", payload=b"")
    prompts.hand_over(claims[3], dead, encode(buried))
    assert lost_groups(Ledger(), 5, streams) == []
    scored.acknowledge(scored.claim(1, 0.0))
    assert lost_groups(Ledger(), 5, streams) == [2]
    settled = Ledger()
    settled.train(2)
    assert lost_groups(settled, 5, streams) == []


def test_what_is_lost_can_be_issued_again(redis_connection: RedisConnection, streams: list[RedisStream]) -> None:
    log = issue(redis_connection, streams[0], 2)
    streams[0].acknowledge(streams[0].claim(2, 0.0))
    assert lost_groups(Ledger(), 2, streams) == [0, 1]
    log.issue_again(encode(scored_group(0, rewards=[1.0, 0.0]).group.prompt))
    assert lost_groups(Ledger(), 2, streams) == [1]
    assert log.issued_count() == 2


def test_a_start_anew_takes_over_what_the_same_run_has_left(redis_connection: RedisConnection, run: str) -> None:
    leftovers = Leftovers(redis_connection, run)
    leftovers.check(MADE, issued=0, lost=[], folder="runs/x")
    leftovers.note(MADE)
    leftovers.check(MADE, issued=4, lost=[1], folder="runs/x")


@pytest.mark.parametrize(("noted", "lost"), [(OTHER, []), (None, [3])])
def test_the_queues_of_another_run_are_refused_with_what_to_do(
    redis_connection: RedisConnection, run: str, noted: MadeOf | None, lost: list[int]
) -> None:
    leftovers = Leftovers(redis_connection, run)
    if noted is not None:
        leftovers.note(noted)
    with pytest.raises(
        InputError, match=rf"an earlier run named {run}: 4 groups.*no checkpoint in runs/x.*ratchet:{run}:\*"
    ):
        leftovers.check(MADE, issued=4, lost=lost, folder="runs/x")


def test_queues_that_are_emptied_begin_at_zero(
    redis_connection: RedisConnection, run: str, streams: list[RedisStream]
) -> None:
    log = issue(redis_connection, streams[0], 3)
    streams[0].claim(1, 0.0)
    empty_queues(redis_connection, run)
    assert log.issued_count() == 0
    assert streams[0].depth().waiting + streams[0].depth().pending == 0
    assert log.issue(0, encode(scored_group(0, rewards=[1.0, 0.0]).group.prompt))
