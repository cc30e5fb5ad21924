"""Every service that is asked to stop ends by itself, with the same exit code whichever signal asks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.command.redis_server import RedisServer
from services.command.rooms import PAGE, VERIFIER, python_module
from services.entry import DONE, INTERRUPTED, REDIS_URL_VARIABLE
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from tests.services.page.written import write_run

ASKED = [signal.SIGTERM, signal.SIGINT]
ADDITION = Path(__file__).parents[2] / "examples/addition/addition.toml"
ROLLOUT = """
import sys
from rollout.__main__ import main
from services import entry
from tests.fakes.engine import FakeEngine
sys.argv[1:] = [{run!r}, "--replica-id", "stopping"]
entry.end(lambda: main(lambda _: FakeEngine()))
"""


@contextmanager
def running(command: list[str], **environment: str) -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until_said(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return
    pytest.fail(f"it ended without saying {words!r}: {''.join(said)}")


def code_when(process: "subprocess.Popen[str]", number: signal.Signals) -> int:
    """Its exit code once it is sent this signal."""
    process.send_signal(number)
    _, _ = process.communicate(timeout=40)
    return process.returncode


@pytest.mark.parametrize("number", ASKED)
def test_the_page(tmp_path: Path, number: signal.Signals) -> None:
    folder = write_run(tmp_path)
    with running(python_module(PAGE, str(folder.path), "--port", "0")) as page:
        until_said(page, "page http://")
        assert code_when(page, number) == DONE


@pytest.mark.parametrize("number", ASKED)
def test_the_verifier(number: signal.Signals) -> None:
    with running(python_module(VERIFIER, "--port", "0", "--processes", "1")) as verifier:
        until_said(verifier, "scoring on http://")
        assert code_when(verifier, number) == DONE


@pytest.mark.parametrize("number", ASKED)
def test_a_replica(tmp_path: Path, number: signal.Signals) -> None:
    with RedisServer(tmp_path / "redis") as server:
        command = [sys.executable, "-c", ROLLOUT.format(run=str(ADDITION))]
        with running(command, **{REDIS_URL_VARIABLE: server.url}) as replica:
            connection = RedisConnection(server.url, deadline_s=5)
            members, end_s = Membership(connection, "addition", lease_s=5.0), time.monotonic() + 60
            while not members.live():
                assert time.monotonic() < end_s, "it takes no lease"
                time.sleep(0.05)
            assert code_when(replica, number) == DONE
            assert not members.live(), "it left without a word"
            connection.close()


@pytest.mark.parametrize("number", ASKED)
def test_a_service_that_has_begun_nothing_ends_at_once(number: signal.Signals) -> None:
    """The learner is in this state while it loads its model, and ends so as well when it is stopped before its last step."""
    program = """
import time
from services import entry
def main():
    entry.begin(entry.service_parser("learner", config_optional=True))
    print("begun", flush=True)
    while True:
        time.sleep(0.05)  # a signal that comes just before a sleep is heard after it
entry.end(main)
"""
    with running([sys.executable, "-c", program]) as service:
        until_said(service, "begun")
        assert code_when(service, number) == INTERRUPTED
