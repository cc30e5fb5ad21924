"""What `ratchet why` gathers: from the files of a run, and from its server."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from services import cause
from services.command.facts import gather, recent_warnings
from services.command.redis_server import RedisServer
from services.command.run_lock import locked
from services.command.run_processes import write_settings
from services.errors import DiskFull, InputError
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.streams.names import DEAD, PROMPTS
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.wire.codec import encode
from services.wire.score import DeadGroup
from tests.services.command.running import run


def started(tmp_path: Path) -> RunFolder:
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    folder.logs.mkdir(parents=True)
    write_settings(config, folder)
    return folder


def test_what_ended_a_service_is_found_until_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = started(tmp_path)
    file = folder.logs / ".learner.cause"
    cause.make_room(file)
    assert gather(folder.path).left == {}
    monkeypatch.setenv(cause.CAUSE_VARIABLE, str(file))
    cause.leave(DiskFull("no space is left"))
    assert gather(folder.path).left["learner"].message == "no space is left"
    cause.make_room(file)
    assert gather(folder.path).left == {}


def test_warnings_of_the_last_minutes_are_read_in_both_formats(tmp_path: Path) -> None:
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    lines = [
        "2020-01-01 00:00:00,000 WARNING ratchet.learner: long ago",
        f"{said},000 INFO    ratchet.learner: step 1",
        f"{said},000 WARNING ratchet.learner: of now",
        '{"time": "2020-01-01T00:00:00+00:00", "level": "ERROR", "message": "long ago"}',
        f'{{"time": "{time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now))}", "level": "ERROR", "message": "too"}}',
        '{"time": "2020',
    ]
    (tmp_path / "learner.log").write_text("\n".join(lines), encoding="utf-8")
    assert list(recent_warnings(tmp_path, now)) == [("learner", "of now"), ("learner", "too")]


def test_the_server_of_a_run_is_asked(tmp_path: Path) -> None:
    folder = started(tmp_path)
    with JsonLines(folder.steps) as lines:
        lines.write(step=3, attempt=1, skipped=None)
    name = folder.path.name
    with locked(folder), RedisServer(folder.redis) as server:
        folder.redis_url.write_text(server.url, encoding="utf-8")
        connection = RedisConnection(server.url, deadline_s=5)
        dead = DeadGroup(prompt=None, group_id="g", stage="prompts", cause="too long", payload=b"")
        RedisIssueLog(connection, RedisStream(connection, name, DEAD, "test", 1.0)).issue_again(encode(dead))
        RedisIssueLog(connection, RedisStream(connection, name, PROMPTS, "test", 1.0)).issue_again(b"x")
        facts = gather(folder.path)
        connection.close()
    assert facts.is_running
    assert facts.dead_causes == ["prompts: too long"]
    assert facts.depths[PROMPTS].waiting == 1
    assert facts.redis_memory is not None
    assert facts.redis_memory[0] > 0
    assert [row["step"] for row in facts.steps] == [3]


def test_a_server_that_is_gone_is_a_fact(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.redis_url.write_text(f"unix://{tmp_path}/no.sock", encoding="utf-8")
    with locked(folder):
        facts = gather(folder.path)
    assert not facts.is_running
    assert facts.redis_fault is not None
    assert gather(folder.path).redis_fault is None, "nobody runs it, so its server is not missed"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        gather(tmp_path)


def test_a_command_that_only_looks_at_a_run_imports_nothing_large() -> None:
    program = "import sys, services.command.status, services.command.fleet; print(*{'httpx', 'numpy', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
