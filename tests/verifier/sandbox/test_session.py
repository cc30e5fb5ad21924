import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.config.sandbox import Bubblewrap
from tests.verifier.sandbox.machine import nothing_is_left, sandbox_or_skip
from verifier.sandbox.footprint import descendants
from verifier.sandbox.launch import Launcher
from verifier.sandbox.limits import Limits, limits_within
from verifier.sandbox.session import Session

ORPHAN = """
import sys
from services.config.sandbox import Bubblewrap
from verifier.sandbox.limits import limits_within
from verifier.sandbox.probe import probe
from verifier.sandbox.session import Session
launcher = probe(Bubblewrap()).launcher
with Session(launcher, limits_within(Bubblewrap(max_wall_s=60.0), wall_s=60.0, memory_mb=128)) as session:
    session.load("import os, time\\nos.fork()\\nos.setsid()\\ndef f(): time.sleep(60)", "f")
    print("loaded", flush=True)
    session.test({"args": [], "kwargs": {}})
"""


@pytest.fixture(scope="module")
def launcher() -> Launcher:
    return sandbox_or_skip()


@pytest.fixture
def limits() -> Limits:
    return limits_within(Bubblewrap(), wall_s=5.0, memory_mb=128)


def test_a_function_is_called_in_a_process_of_its_own_for_each_test(launcher: Launcher, limits: Limits) -> None:
    with nothing_is_left(), Session(launcher, limits) as session:
        session.load("calls = []\ndef f(x, *, by=1):\n    calls.append(x)\n    return [x * by, len(calls)]", "f")
        results = [session.test({"args": [x], "kwargs": {"by": 3}}).result for x in range(3)]
    assert [json.loads(result or "") for result in results] == [[0, 1], [3, 1], [6, 1]]


def test_a_program_is_run_once_for_each_test(launcher: Launcher, limits: Limits) -> None:
    with nothing_is_left(), Session(launcher, limits) as session:
        session.load("import sys\nprint(input())\nprint('so', file=sys.stderr)", None)
        for text in ("one", "two \u00e9"):
            finished = session.test({"stdin": f"{text}\n"})
            assert (finished.output.decode(), finished.errors, finished.exit_code) == (f"{text}\n", b"so\n", 0)


def test_large_input_and_output_pass(launcher: Launcher, limits: Limits) -> None:
    with Session(launcher, limits) as session:
        session.load("def f(x): return x[::-1]", "f")
        text = "ab" * 400_000
        assert json.loads(session.test({"args": [text], "kwargs": {}}).result or "") == text[::-1]
    with Session(launcher, limits) as session:
        session.load("print(input()[::-1])", None)
        assert session.test({"stdin": text}).output == text[::-1].encode() + b"\n"


def test_the_same_program_gives_the_same_in_another_sandbox(launcher: Launcher, limits: Limits) -> None:
    def order() -> bytes:
        with Session(launcher, limits) as session:
            session.load("print(list({str(n) for n in range(50)}))", None)
            return session.test({"stdin": ""}).output

    assert order() == order()


def test_a_sandbox_dies_with_the_process_that_made_it(launcher: Launcher, tmp_path: Path) -> None:
    maker = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    try:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"loaded\n"
        sandbox = [pid for pid in descendants(maker.pid) if pid != maker.pid]
        assert len(sandbox) >= 3
    finally:
        maker.send_signal(signal.SIGKILL)
        maker.communicate()
    give_up_s = time.monotonic() + 10
    while (left := [pid for pid in sandbox if runs(pid)]) and time.monotonic() < give_up_s:
        time.sleep(0.02)
    assert left == []


def test_no_moment_at_which_a_grader_process_is_killed_leaves_a_process_behind(launcher: Launcher) -> None:
    marked = limits_within(Bubblewrap(), wall_s=5.0, memory_mb=131)
    for delay_ms in range(0, 60, 2):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    Session(launcher, marked).end()
            finally:
                os._exit(1)
        time.sleep(delay_ms / 1000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    give_up_s = time.monotonic() + 10
    while left := [pid for pid in everybody() if b'"memory_mb": 131,' in command_line(pid)]:
        assert time.monotonic() < give_up_s, left
        time.sleep(0.05)


def everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_open_file_is_left(launcher: Launcher, limits: Limits) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with Session(launcher, limits) as session:
            session.load("def f(): return 1", "f")
            assert session.test({"args": [], "kwargs": {}}).result == "1"
        session.end()
    assert len(os.listdir("/proc/self/fd")) == before
