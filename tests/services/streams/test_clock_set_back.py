"""The clock of Redis is set back by an hour, and what a dead worker had claimed goes to others after the idle time."""

from pathlib import Path

import pytest

from services.clock import now_s, sleep
from services.command.redis_server import RedisServer
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from tests.chaos.clocks import jump, library, redis_with

IDLE_S = 1.5


@pytest.mark.skipif(library() is None, reason="needs libfaketime, a package of Debian")
def test_what_was_claimed_before_the_clock_was_set_back_is_lent_again_after_the_idle_time(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    with redis_with(clock, tmp_path), RedisServer(tmp_path / "redis") as server:
        connection = RedisConnection(server.url)
        dead, other, renewing = (RedisStream(connection, "run", "prompts", name, IDLE_S) for name in "abc")
        log = RedisIssueLog(connection, dead)
        for number in range(3):
            log.issue(number, b"%d" % number)
        assert [claim.payload for claim in dead.claim(2, 0.0)] == [b"0", b"1"]
        held = renewing.claim(1, 0.0)
        jump(clock, -3600.0)
        lent: list[bytes] = []
        end_s = now_s() + 15.0
        while len(lent) < 2 and now_s() < end_s:
            renewing.renew(held)
            lent += [claim.payload for claim in other.claim(9, 0.0)]
            sleep(0.1)
        assert lent == [b"0", b"1"]
        assert [(entry.owner, entry.deliveries) for entry in other.entries()] == [("b", 2), ("b", 2), ("c", 1)]
        connection.close()
