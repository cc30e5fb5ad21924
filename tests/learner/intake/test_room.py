"""A real server whose memory is full stops new prompts and nothing else, says so once, and they go on when there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from learner.intake.issuer import PromptIssuer, PromptSource
from services.command.redis_server import RedisServer
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from tests.learner.small_run import PROBLEMS, small_config, token_ids


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[RedisConnection]:
    with RedisServer(tmp_path / "redis") as server:
        connection = RedisConnection(server.url, deadline_s=5.0)
        yield connection
        connection.close()


def waits() -> float:
    return REGISTRY.get_sample_value("ratchet_waiting", {"room": "learner", "awaiting": "room in Redis"}) or 0.0


def has_memory(connection: RedisConnection, is_there: bool) -> None:
    connection.execute("CONFIG", "SET", "maxmemory", 0 if is_there else 1)


def test_prompts_wait_for_room_in_one_line_and_go_on_where_they_were(
    connection: RedisConnection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(tmp_path)
    stream = RedisStream(connection, config.name, "prompts", "rollout-0", 60)
    issuer = PromptIssuer(config, [PromptSource(PROBLEMS, token_ids)], RedisIssueLog(connection, stream))

    def issue(settled: int) -> int:
        return issuer.issue(issuer.issued_count(), lambda issued: issued - settled, 0, 0, max_lag=1)

    assert issue(0) == 4
    has_memory(connection, False)
    assert [issue(2) for _ in range(3)] == [4, 4, 4]
    assert waits() == 1
    claims = stream.claim(4, 0)
    assert len(claims) == 4  # what is out moves on, and is acknowledged
    assert stream.acknowledge(claims) == 4
    has_memory(connection, True)
    assert issue(2) == 6
    assert waits() == 0
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "no new prompts go out for now, and all else goes on" in said[0]
    assert "raise maxmemory" in said[0]
    assert "Redis has room again" in said[1]
