"""Wall clocks jump by as much as they are told, for a process that follows one and for Redis; monotonic clocks do not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.clock import now_s, sleep
from services.command.redis_server import RedisServer
from services.streams.redis_connection import RedisConnection
from tests.chaos.clocks import NOTICED_S, jump, library, redis_with

FOLLOWER = """
import sys, time
from pathlib import Path
from tests.chaos.clocks import follow
right = time.time
follow(Path(sys.argv[1]))
for _ in sys.stdin:
    print(time.time() - right(), flush=True)
"""


def test_a_process_that_follows_a_clock_sees_every_jump_of_it(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    command = [sys.executable, "-c", FOLLOWER, str(clock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdin is not None
        assert follower.stdout is not None
        seen = []
        for seconds in (0.0, 3600.0, -3605.0):
            if seconds:
                jump(clock, seconds)
            follower.stdin.write("\n")
            follower.stdin.flush()
            seen.append(float(follower.stdout.readline()))
        follower.stdin.close()
    assert seen == pytest.approx([0.0, 3600.0, -5.0], abs=0.1)


@pytest.mark.skipif(library() is None, reason="needs libfaketime, a package of Debian")
def test_redis_has_the_time_that_it_is_told_and_waits_as_long_as_before(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    with redis_with(clock, tmp_path), RedisServer(tmp_path / "redis") as server:
        connection = RedisConnection(server.url)
        assert abs(_wrong_by(connection)) < 2.0
        jump(clock, -3600.0)
        end_s = now_s() + 10.0
        while (wrong_s := _wrong_by(connection)) > -3590.0 and now_s() < end_s:
            sleep(NOTICED_S / 10)
        assert wrong_s == pytest.approx(-3600.0, abs=2.0)
        connection.close()


def _wrong_by(connection: RedisConnection) -> float:
    seconds, _ = connection.execute("TIME")
    return int(seconds) - time.time()
