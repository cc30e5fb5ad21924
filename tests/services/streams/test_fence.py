"""Two runs, or two learners of one, are never taken for each other: on a real server."""

import logging
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from services.command.redis_server import RedisServer
from services.errors import InputError
from services.streams.fence import (
    Fence,
    FencedConnection,
    Holder,
    LearnerReplaced,
    found_identity,
    holder_now,
    identity_of,
)
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream

LEASE_S = 0.6


class Learner:
    """A start of the learner with its streams."""

    def __init__(
        self, connection: RedisConnection, run: str, folder: Path, *, host: str = "here", id_of: Path | None = None
    ):
        identity = identity_of((id_of or folder) / ".identity", folder)
        holder = msgspec.structs.replace(holder_now(folder), host=host)
        self.fence = Fence(connection, run, identity, holder, LEASE_S)
        fenced = FencedConnection(connection, self.fence)
        self.prompts = RedisStream(fenced, run, "prompts", "learner", 60.0)
        self.scored = RedisStream(fenced, run, "scored", "learner", 60.0)
        self.log = RedisIssueLog(fenced, self.prompts)


@pytest.fixture
def run() -> str:
    return f"fence-{uuid.uuid4().hex}"


def test_a_second_learner_elsewhere_is_refused_while_the_first_lives(
    redis_connection: RedisConnection, run: str, tmp_path: Path
) -> None:
    first = Learner(redis_connection, run, tmp_path)
    first.fence.take()
    second = Learner(redis_connection, run, tmp_path, host="there")
    with pytest.raises(InputError, match=rf"another learner of the run {run} is at work: process \d+ on here, folder"):
        second.fence.take()
    assert first.log.issue(0, b"0")
    first.fence.close()
    second.fence.take()
    second.fence.close()


def test_a_server_whose_memory_is_full_knows_who_the_learner_is(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        connection = RedisConnection(server.url, deadline_s=5.0)
        connection.execute("CONFIG", "SET", "maxmemory", 1)
        first = Learner(connection, "full", tmp_path)
        first.fence.take()
        time.sleep(2 * LEASE_S)  # and renews its lease
        with pytest.raises(InputError, match="another learner of the run full is at work"):
            Learner(connection, "full", tmp_path, host="there").fence.take()
        first.fence.close()
        connection.close()


def test_a_lease_from_before_the_clock_of_the_server_was_set_back_holds_the_next_learner_up_for_one_lease(
    redis_connection: RedisConnection, run: str, tmp_path: Path
) -> None:
    killed = Learner(redis_connection, run, tmp_path)
    killed.fence.take()
    killed.fence.close()
    redis_connection.execute("SET", f"ratchet:{run}:learner_lease", "1", "PX", 3_600_000)
    elsewhere = Learner(redis_connection, run, tmp_path, host="there")
    begun_s = time.monotonic()
    elsewhere.fence.take()
    assert LEASE_S / 2 < time.monotonic() - begun_s < LEASE_S + 1.0
    elsewhere.fence.close()


def test_one_that_was_killed_on_the_same_host_and_folder_is_replaced_at_once(
    redis_connection: RedisConnection, run: str, tmp_path: Path
) -> None:
    killed, again = (Learner(redis_connection, run, tmp_path) for _ in range(2))
    killed.fence.take()
    again.fence.take()
    assert again.log.issue(0, b"0")
    killed.fence.close()
    again.fence.close()


def test_a_learner_that_was_replaced_changes_nothing_when_it_wakes_up(
    redis_connection: RedisConnection, run: str, tmp_path: Path
) -> None:
    old, new = (Learner(redis_connection, run, tmp_path) for _ in range(2))
    old.fence.take()
    for number in range(3):
        old.log.issue(number, b"%d" % number)
    held = old.prompts.claim(1, 0.0)
    new.fence.take()
    before = redis_connection.execute("XPENDING", old.prompts.key, "workers", "-", "+", 9), new.prompts.depth()
    for act in (
        lambda: old.log.issue(3, b"3"),
        lambda: old.log.advance(9),
        lambda: old.log.issue_again(b"0"),
        lambda: old.prompts.claim(1, 0.0),
        lambda: old.prompts.acknowledge(held),
        lambda: old.prompts.hand_over(held[0], old.scored, b"x"),
        lambda: old.prompts.hand_over(held[0], old.scored, b"x" * 2**20),
        lambda: old.prompts.release(held),
    ):
        with pytest.raises(LearnerReplaced, match=r"another learner has taken over the run .* This one .* ends"):
            act()
    after = redis_connection.execute("XPENDING", old.prompts.key, "workers", "-", "+", 9), new.prompts.depth()
    assert [row[:2] for row in after[0]] == [row[:2] for row in before[0]]
    assert (after[1], new.log.issued_count(), new.scored.peek(9)) == (before[1], 3, [])
    assert LearnerReplaced.retry == "never"
    old.fence.close()
    assert new.log.issue(3, b"3"), "what has been replaced does not give up the other's lease"
    new.fence.close()


def test_two_runs_of_one_name_are_told_apart_and_both_are_named(
    redis_connection: RedisConnection, run: str, tmp_path: Path
) -> None:
    one = Learner(redis_connection, run, tmp_path / "a")
    one.fence.take()
    one.fence.close()
    other = Learner(redis_connection, run, tmp_path / "b")
    with pytest.raises(
        InputError, match=rf"another run named {run}: the run of .*/a on .*; this is the run of .*/b on"
    ):
        other.fence.take()


def test_an_emptied_server_is_taken_again_in_one_line_and_another_runs_server_is_not(
    redis_connection: RedisConnection, run: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = Learner(redis_connection, run, tmp_path / "a")
    learner.fence.take()
    keys = [f"ratchet:{run}:{name}" for name in ("identity", "learner", "learner_lease")]
    redis_connection.execute("DEL", *keys)
    with caplog.at_level(logging.WARNING):
        assert learner.log.issue(0, b"0")
        assert learner.log.issue(1, b"1")
    assert len([record for record in caplog.records if "had lost the keys" in record.message]) == 1
    found = found_identity(redis_connection, run)
    assert found is not None
    assert found.run_id == identity_of(tmp_path / "a" / ".identity", tmp_path).run_id
    redis_connection.execute("DEL", *keys)
    other = Learner(redis_connection, run, tmp_path / "b")
    other.fence.take()
    with pytest.raises(LearnerReplaced, match="another learner has taken over"):
        learner.log.issue(2, b"2")
    redis_connection.execute("DEL", keys[1])
    with pytest.raises(InputError, match="another run named"):
        learner.log.issue(2, b"2")
    learner.fence.close()
    other.fence.close()


def test_a_damaged_identity_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".identity").write_text("x\n")
    with pytest.raises(InputError, match=r"\.identity does not hold the name of a run: 'x'"):
        identity_of(tmp_path / ".identity", tmp_path)


def test_a_holder_says_who_it_is() -> None:
    assert Holder("/runs/a", "host", 7, 0.0, "x").said().startswith("process 7 on host, folder /runs/a, since 19")
