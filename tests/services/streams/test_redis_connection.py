"""A connection says who is at fault and what to do, and survives what passes."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.command.redis_server import RedisServer
from services.errors import InputError, StreamError
from services.metrics import WAIT_SECONDS
from services.streams.redis_connection import LONGEST_LAST_TRIES_S, WARN_AFTER_S, CommandRefused, RedisConnection


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def with_password(url: str, password: str) -> str:
    return f"unix://{password}@{url.partition('@')[2]}"


@pytest.mark.parametrize("password", [":wr0ng", "", "somebody:wr0ng"])
def test_a_wrong_password_is_an_input_error_at_once(redis_url: str, password: str) -> None:
    begun_s = time.monotonic()
    with pytest.raises(InputError, match="RATCHET_REDIS_URL") as raised:
        RedisConnection(with_password(redis_url, password), deadline_s=30).check()
    assert "wr0ng" not in str(raised.value)
    assert time.monotonic() - begun_s < 5


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://:s3cret@host",
        "redis://:s3cret@host:port/0",
        "redis://:s3cret@host/0?unknown=1",
        "redis://:s3cret/1@host",
    ],
)
def test_an_unusable_url_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(InputError, match="It looks like redis://") as raised:
        RedisConnection(url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://:s3cret@127.0.0.1:1/2", "127.0.0.1:1/2"),
        ("unix://:s3cret@/nowhere/redis.sock", "unix:///nowhere/redis.sock"),
        ("redis://:s3cret@no-such-host.invalid/0", "no-such-host.invalid:6379/0"),
    ],
)
def test_an_unreachable_server_is_named_within_the_deadline(url: str, address: str) -> None:
    begun_s = time.monotonic()
    with pytest.raises(StreamError, match=r"raise deadlines\.redis_s") as raised:
        RedisConnection(url, deadline_s=0.5).check()
    assert address in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert time.monotonic() - begun_s < 5


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_server_that_would_evict_streams_is_refused(server: RedisServer, policy: str) -> None:
    connection = RedisConnection(server.url)
    connection.execute("CONFIG", "SET", "maxmemory-policy", policy)
    connection.check()  # without maxmemory nothing is evicted
    connection.execute("CONFIG", "SET", "maxmemory", "100mb")
    with pytest.raises(InputError, match=f"{policy}.*Set maxmemory-policy noeviction"):
        connection.check()


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru"])
def test_a_full_server_may_refuse_writes_or_evict_what_expires(server: RedisServer, policy: str) -> None:
    connection = RedisConnection(server.url)
    connection.execute("CONFIG", "SET", "maxmemory-policy", policy)
    connection.execute("CONFIG", "SET", "maxmemory", "100mb")
    connection.check()


def test_a_frozen_server_is_given_up_within_the_deadline_and_used_again_later(server: RedisServer) -> None:
    connection = RedisConnection(server.url, deadline_s=0.6)
    connection.check()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    begun_s = time.monotonic()
    with pytest.raises(StreamError, match="gave no usable answer"):
        connection.execute("PING")
    assert time.monotonic() - begun_s < 3
    os.kill(server.pid, signal.SIGCONT)
    assert RedisConnection(server.url, deadline_s=10).execute("PING") == b"PONG"


def test_commands_wait_for_a_server_that_is_being_started_again(server: RedisServer) -> None:
    connection = RedisConnection(server.url, deadline_s=20)
    connection.execute("SET", "key", "value")
    server.stop()
    answers: list[bytes] = []
    asking = [threading.Thread(target=lambda: answers.append(connection.execute("GET", "key"))) for _ in range(4)]
    for thread in asking:
        thread.start()
    time.sleep(0.2)
    server.start()
    for thread in asking:
        thread.join(20)
    assert answers == [b"value"] * 4


def test_an_outage_is_a_visible_wait_and_its_end_is_logged(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    connection = RedisConnection(server.url, deadline_s=20)
    connection.check()
    waited = WAIT_SECONDS.labels("streams", "Redis")
    before_s = next(iter(waited.collect())).samples[0].value
    server.stop()
    with caplog.at_level(logging.INFO, "ratchet"):
        asking = threading.Thread(target=connection.execute, args=("PING",))
        asking.start()
        time.sleep(WARN_AFTER_S + 0.5)
        server.start()
        asking.join(20)
    assert [record.levelname for record in caplog.records if "Redis at" in record.message] == ["WARNING", "INFO"]
    assert "answers again after" in caplog.text
    assert next(iter(waited.collect())).samples[0].value - before_s >= WARN_AFTER_S


def test_many_dead_sockets_do_not_use_up_the_deadline(server: RedisServer) -> None:
    connection = RedisConnection(server.url, deadline_s=3)
    read = ("XREAD", "BLOCK", 200, "STREAMS", "nothing", "$")
    readers = [threading.Thread(target=connection.execute, args=read, kwargs={"block_s": 0.2}) for _ in range(30)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(10)
    server.stop()
    server.start()
    assert connection.execute("PING") == b"PONG"


def test_a_server_that_is_busy_with_a_script_is_waited_for(server: RedisServer) -> None:
    busy, other = (RedisConnection(server.url, deadline_s=20) for _ in range(2))
    other.execute("CONFIG", "SET", "lua-time-limit", 10)
    lua = "local n = 0; for i = 1, 5e7 do n = n + 1 end; return 1"
    thread = threading.Thread(target=busy.run_script, args=(lua, []))
    thread.start()
    time.sleep(0.1)
    assert other.execute("SET", "key", "value") == b"OK"
    thread.join(20)


def test_a_blocking_command_may_be_silent_for_longer_than_a_try(redis_url: str) -> None:
    connection = RedisConnection(redis_url, deadline_s=0.4)
    begun_s = time.monotonic()
    assert connection.execute("XREAD", "BLOCK", 700, "STREAMS", "nothing", "$", block_s=0.7) is None
    assert 0.65 <= time.monotonic() - begun_s < 3


@pytest.mark.parametrize("name", ["XADD", "incr", "LPUSH"])
def test_commands_that_may_not_run_twice_are_refused(redis_connection: RedisConnection, name: str) -> None:
    with pytest.raises(ValueError, match="may not run twice"):
        redis_connection.execute(name, "key", "value")


def test_a_refusal_names_the_command_and_leaves_the_socket_in_step(redis_connection: RedisConnection) -> None:
    with pytest.raises(CommandRefused, match="refused NONSENSE") as raised:
        redis_connection.execute_many([("SET", "step", "1"), ("NONSENSE",), ("SET", "step", "2")])
    assert raised.value.code == "ERR"
    assert redis_connection.execute_many([("GET", "step"), ("PING",)]) == [b"2", b"PONG"]


def test_a_script_is_sent_again_to_a_server_that_forgot_it(redis_connection: RedisConnection) -> None:
    for _ in range(2):
        assert redis_connection.run_script("return ARGV[1]", [], ["x"]) == b"x"
        redis_connection.execute("SCRIPT", "FLUSH")


def test_a_process_that_ends_waits_for_no_server_that_is_away(tmp_path: Path) -> None:
    connection = RedisConnection(f"unix://{tmp_path / 'nobody.sock'}", deadline_s=60)
    threading.Timer(0.2, connection.hurry).start()
    begun_s = time.monotonic()
    for _ in range(3):  # one that is under way, and those to come
        with pytest.raises(StreamError, match="no usable answer"):
            connection.execute("PING")
    assert time.monotonic() - begun_s < LONGEST_LAST_TRIES_S + 3.0


def test_a_process_that_ends_still_hears_a_server_that_is_there(redis_url: str) -> None:
    connection = RedisConnection(redis_url)
    connection.hurry()
    assert connection.execute("PING") == b"PONG"
