"""Tools of a real MCP server, over its standard streams and over HTTP."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.errors import InputError
from tests.rollout.environments.tools.talk import answers, call, talk

pytest.importorskip("mcp")
SERVER = str(Path(__file__).with_name("mcp_server.py"))
BY_COMMAND = {"type": "mcp", "command": [sys.executable, SERVER]}


def test_a_server_that_is_started_is_called_and_keeps_its_state_for_one_conversation() -> None:
    calls = [call("note", text="one"), call("note", text="two"), call("fail", reason="no such city")]
    start, (first, second, third) = talk([BY_COMMAND], *calls)
    told = {tool["function"]["name"]: tool["function"] for tool in start.tools}
    assert set(told) == {"note", "variables", "fail", "leave"}
    assert told["note"]["description"] == "Keeps a note, and says all of them."
    assert told["note"]["parameters"]["required"] == ["text"]
    assert [turn.messages[0]["content"] for turn in (first, second)] == ["one", "one; two"]
    assert "no such city" in third.messages[0]["content"]
    assert third.info["tool_errors"] == ["fail"]
    assert answers([BY_COMMAND], call("note", text="three")) == ["three"]


def test_a_server_sees_no_secrets_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_VERIFIER_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("RATCHET_REDIS_URL", "redis://:secret@nowhere")
    (names,) = answers([BY_COMMAND | {"environment": {"CITY": "Ulm"}, "only": ["variables"]}], call("variables"))
    assert "CITY" in names.split()
    assert "PATH" in names.split()
    assert not any(name.startswith("RATCHET") for name in names.split())


def test_a_server_that_ends_is_a_fault_of_the_environment() -> None:
    with pytest.raises(Exception, match=r".") as fault:
        talk([BY_COMMAND | {"seconds": 5.0}], call("leave"))
    assert not isinstance(fault.value, InputError)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"only": ["note", "fly"]}, r"environment.tools.0.only: the server has no tool fly; it has note, variables"),
        (
            {"command": ["no-such-program"]},
            r"environment.tools.0.command = .*: there is no program .no-such-program. here: install it",
        ),
    ],
)
def test_what_the_user_got_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        talk([BY_COMMAND | changes])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL)
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp"
    server.kill()
    server.wait()


def test_a_server_at_a_url_is_called(url: str) -> None:
    assert answers([{"type": "mcp", "url": url, "only": ["note"]}], call("note", text="one")) == ["one"]


def test_a_server_that_is_not_there_is_a_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(BaseException, match=r".") as fault:
        talk([{"type": "mcp", "url": f"http://127.0.0.1:{port}/mcp", "seconds": 5.0}])
    assert not isinstance(fault.value, InputError)
