"""The shelf against a real server."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.command.redis_server import RedisServer
from services.streams import redis_cache
from services.streams.redis_cache import AT_ONCE, RedisStore
from services.streams.redis_connection import RedisConnection


def shelf(connection: RedisConnection, max_entries: int, run: str = "") -> RedisStore:
    return RedisStore(connection, run or f"shelf-{uuid.uuid4()}", "verdicts", max_entries)


def keys(*numbers: int) -> list[bytes]:
    return [b"key\x00%d" % number for number in numbers]


def put(one: RedisStore, *numbers: int) -> None:
    asyncio.run(one.put_many({key: b"\xffvalue of " + key for key in keys(*numbers)}))


def found(one: RedisStore, *numbers: int) -> list[int]:
    """Those that are there, each with its own value."""
    values = asyncio.run(one.get_many(keys(*numbers)))
    assert len(values) == len(numbers)
    for key, value in zip(keys(*numbers), values, strict=True):
        assert value in (None, b"\xffvalue of " + key)
    return [number for number, value in zip(numbers, values, strict=True) if value is not None]


def held(connection: RedisConnection, one: RedisStore) -> int:
    return sum(connection.execute("HLEN", key) for key in one._keys)


def test_what_was_put_is_found_in_the_order_of_the_keys(redis_connection: RedisConnection) -> None:
    one = shelf(redis_connection, 1000)
    assert found(one, 1, 2, 3) == []
    put(one, 1, 3)
    assert found(one, 3, 2, 1) == [3, 1]
    assert found(one) == []


def test_another_run_has_a_shelf_of_its_own_and_another_verifier_of_the_run_the_same(
    redis_connection: RedisConnection,
) -> None:
    run = f"shelf-{uuid.uuid4()}"
    put(shelf(redis_connection, 10, run), 1)
    assert found(shelf(redis_connection, 10, run), 1) == [1]
    assert found(shelf(redis_connection, 10, run + "x"), 1) == []


@pytest.mark.parametrize("max_entries", [2, 10, 11, 100])
def test_it_never_holds_more_than_allowed(redis_connection: RedisConnection, max_entries: int) -> None:
    one = shelf(redis_connection, max_entries)
    for number in range(3 * max_entries):
        put(one, number)
        assert held(redis_connection, one) <= max_entries
    assert found(one, *range(3 * max_entries)), "some are there"


def test_one_large_batch_does_not_go_over_what_is_allowed(redis_connection: RedisConnection) -> None:
    one = shelf(redis_connection, 100)
    put(one, *range(AT_ONCE + 500))
    put(one, *range(5000, 5000 + AT_ONCE))
    assert held(redis_connection, one) <= 100


def test_what_was_put_or_found_within_the_last_half_is_there(redis_connection: RedisConnection) -> None:
    one = shelf(redis_connection, 20)
    put(one, 0)
    for number in range(1, 100):
        put(one, number)
        assert found(one, 0) == [0], "it is asked for all the time"
    recent = list(range(100 - 10 + 1, 100))
    assert found(one, *recent) == recent
    assert found(one, 1, 2, 3, 4) == []


def test_more_keys_than_a_script_takes_are_asked_for_in_parts(redis_connection: RedisConnection) -> None:
    one = shelf(redis_connection, 100_000)
    numbers = range(2 * AT_ONCE + 7)
    put(one, *numbers)
    assert found(one, *numbers) == list(numbers)


def test_without_a_server_it_goes_on_and_asks_again_only_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_cache, "PAUSE_S", 1.0)
    with RedisServer(tmp_path) as server:
        connection = RedisConnection(server.url, deadline_s=0.3)
        one = shelf(connection, 10)
        put(one, 1)
        server.stop()
        assert found(one, 1) == []
        start_s = time.monotonic()
        for _ in range(50):
            assert found(one, 1) == []
            put(one, 2)
        assert time.monotonic() - start_s < 0.3, "a call waited for a server that is known to be away"
        assert sum("going on without the cache" in record.message for record in caplog.records) == 1
        server.start()
        time.sleep(max(0.0, start_s + 1.0 - time.monotonic()))
        assert found(one, 1) == [1], "it is back, with what it had"
        connection.close()


def test_a_part_of_an_answer_is_none_when_the_server_goes_away_in_the_middle() -> None:
    class Leaving(RedisStore):
        async def _run(self, script: str, arguments: Sequence[bytes | int]) -> list[bytes] | None:
            self.asked = getattr(self, "asked", 0) + 1
            return [b"value"] * len(arguments) if self.asked == 1 else None

    one = Leaving(None, "run", "verdicts", 10)  # type: ignore[arg-type]
    assert asyncio.run(one.get_many(keys(*range(AT_ONCE + 1)))) == [None] * (AT_ONCE + 1)


def test_a_key_of_another_kind_costs_the_shelf_and_nothing_else(redis_connection: RedisConnection) -> None:
    one = shelf(redis_connection, 10)
    redis_connection.execute("SET", one._keys[0], "a string")
    put(one, 1)
    assert found(one, 1) == []
