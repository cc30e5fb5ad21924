"""How services start and end, and how they end with their supervisor, even with a launcher between the two."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services import entry
from services.config.load import load
from services.errors import InputError

RUN = Path(__file__).parents[2] / "deploy" / "runs" / "addition-cpu.toml"

SERVICE = """
import pathlib, sys, time
from services import entry
entry.watch_supervisor()
pathlib.Path(sys.argv[1]).write_text("up")
time.sleep(60)
"""
# A supervisor, which tells its process id to what it starts; and a launcher in between, such as torchrun.
SUPERVISOR = """
import os, subprocess, sys
from services.entry import SUPERVISED_VARIABLE
service = [sys.executable, "-c", {service!r}, sys.argv[1]]
launcher = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:], start_new_session=True)"]
environment = os.environ | {{SUPERVISED_VARIABLE: str(os.getpid())}}
subprocess.run([*({between} * launcher), *service], env=environment, start_new_session=True)
"""


@pytest.mark.parametrize("between", [0, 1])
def test_a_service_ends_with_its_supervisor_and_not_before(between: int, tmp_path: Path) -> None:
    up = tmp_path / "up"
    program = SUPERVISOR.format(service=SERVICE, between=between)
    with subprocess.Popen([sys.executable, "-c", program, str(up)]) as supervisor:
        until(up.exists, "it did not start")
        time.sleep(2.5)  # two looks of the watch
        assert services_of(up), "it ended although its supervisor is there"
        supervisor.kill()
    until(lambda: not services_of(up), "it outlives its supervisor")


def until(condition: object, complaint: str) -> None:
    assert callable(condition)
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s, complaint
        time.sleep(0.05)


def services_of(up: Path) -> list[int]:
    """Process ids of the service itself, found by its arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if arguments[1:3] == [b"-c", SERVICE.encode()] and arguments[3:4] == [str(up).encode()]:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_left_is_no_error_of_ours(unbuffered: str) -> None:
    ratchet = [
        sys.executable,
        "-c",
        "from services.command.cli import main; main()",
        "config",
        "examples/addition/addition.toml",
    ]
    with subprocess.Popen(
        ratchet,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # long before Python is up
        assert process.stderr.read() == ""
    assert process.returncode == 130


def test_a_fault_of_ours_ends_at_once_with_its_traceback_even_if_threads_are_left() -> None:
    program = """
import threading, time
from services import entry
def main():
    threading.Thread(target=time.sleep, args=(60,)).start()
    raise RuntimeError("not foreseen")
entry.end(main)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 1
    assert "RuntimeError: not foreseen" in ended.stderr


def test_the_password_of_redis_comes_from_a_file_where_the_address_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a/b c@d\n", encoding="utf-8")
    monkeypatch.setenv(entry.REDIS_PASSWORD_FILE_VARIABLE, str(secret))
    config = load(RUN)
    assert entry.redis_url(config) is None
    for without in ("redis://redis:6379/0", "redis://:@redis:6379/0"):
        monkeypatch.setenv(entry.REDIS_URL_VARIABLE, without)
        assert entry.redis_url(config) == "redis://:a%2Fb%20c%40d@redis:6379/0"
    monkeypatch.setenv(entry.REDIS_URL_VARIABLE, "redis://:own@redis:6379/0")
    assert entry.redis_url(config) == "redis://:own@redis:6379/0"


@pytest.mark.parametrize("there", [True, False])
def test_a_password_file_that_is_empty_or_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    secret = tmp_path / "secret"
    if there:
        secret.touch()
    monkeypatch.setenv(entry.REDIS_PASSWORD_FILE_VARIABLE, str(secret))
    monkeypatch.setenv(entry.REDIS_URL_VARIABLE, "redis://redis:6379/0")
    config = load(RUN)
    with pytest.raises(InputError, match=f"RATCHET_REDIS_PASSWORD_FILE: .*{secret}.*(is empty; write|let this user)"):
        entry.redis_url(config)


@pytest.mark.parametrize(("error", "code"), [("InputError", 0), ("DiskFull", 0), ("StreamError", 3)])
def test_a_container_that_would_end_in_the_same_way_ends_for_good(error: str, code: int) -> None:
    program = f"""
from services import entry, errors
def main(): raise errors.{error}("the reason")
entry.end(main)
"""
    environment = {**os.environ, entry.END_CODE_VARIABLE: "0"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert "ratchet: the reason" in ended.stderr
    assert ("another start would end as this one did" in ended.stderr) == (code == 0)


def test_a_container_that_the_same_fault_ends_again_and_again_ends_for_good(tmp_path: Path) -> None:
    def ended(body: str) -> int:
        program = f"""
import os
from services import entry
def main():
    {body}
entry.end(main)
"""
        environment = {**os.environ, entry.END_CODE_VARIABLE: "0", "XDG_CACHE_HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=False
        ).returncode

    fault = "raise ValueError(f'no memory for the cache in process {os.getpid()}')"
    assert [ended(fault) for _ in range(2)] == [1, 1]
    assert ended("raise ValueError('another')") == 1
    assert [ended(fault) for _ in range(2)] == [1, 1]
    assert ended(f"entry.works(); {fault}") == 1  # it was ready in between
    assert [ended(fault) for _ in range(2)] == [1, 0]
