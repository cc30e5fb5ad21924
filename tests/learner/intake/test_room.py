"""A real server whose memory is full stops new prompts and nothing else, says so once, and they go on when there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from learner.intake.collector import Collector, Sampled
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.run_state import RunState
from services.command.redis_server import RedisServer
from services.streams.names import DEAD, PROMPTS, SCORED
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.wire.codec import decode
from services.wire.prompt import Prompt
from tests.learner.small_run import PROBLEMS, Replicas, small_config, token_ids


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


def test_what_was_chosen_and_found_no_room_comes_after_a_checkpoint_too(
    connection: RedisConnection, tmp_path: Path
) -> None:
    config = small_config(tmp_path)
    streams = {name: RedisStream(connection, config.name, name, "learner", 60) for name in (PROMPTS, SCORED, DEAD)}

    def issuer() -> PromptIssuer:
        return PromptIssuer(config, [PromptSource(PROBLEMS, token_ids)], RedisIssueLog(connection, streams[PROMPTS]))

    state, ledger, replicas = RunState.begin(config.learner), Ledger(), Replicas()
    replicas.holds = 0
    intake = Intake(
        config,
        state=state,
        ledger=ledger,
        issuer=issuer(),
        collector=Collector(streams[SCORED], streams[DEAD], ledger, Sampled()),
        replicas=replicas,
        streams=list(streams.values()),
    )
    intake.issue()
    issued = state.issued
    ledger.drop(0, "zero_variance")
    ledger.drop(1, "zero_variance")
    has_memory(connection, False)
    intake.issue()
    assert state.issued == issued
    saved = intake.plan_to_dict()
    again = issuer()
    again.begin(saved, issued)
    undisturbed = issuer()
    wanted = [undisturbed.prompt(number).row for number in range(issued + 2)]
    assert [again.prompt(number).row for number in (issued, issued + 1)] == wanted[issued:]
    has_memory(connection, True)
    intake.issue()
    assert [decode(payload, Prompt).row for payload in streams[PROMPTS].peek(99)] == wanted
