"""Processes that wait for their word: they work when it comes, and end without a trace when it does not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from services.clock import now_s, sleep
from services.command.early_start import started_early
from services.command.supervisor import Service
from services.config import RunConfig
from services.config.load import render
from services.early import SETTINGS_VARIABLE
from tests.services.command.running import run

SERVICE = """
import os, sys
from services.early import wait_for_word
wait_for_word(lambda config: print("prepared for", config.name, file=open(os.environ["PREPARED"], "w")))
print("arguments", sys.argv[1:], "told", os.environ["TOLD"], flush=True)
"""
DEADLINE_S = 30.0
ROOT = Path(__file__).parents[3]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PREPARED": str(folder / "prepared"), "PYTHONPATH": str(ROOT), **more}


def command() -> list[str]:
    return [sys.executable, "-P", "-c", SERVICE]


def tell(config: RunConfig) -> bytes:
    """What a process may be asked."""
    return f"{config.name} in {os.environ['PREPARED']}".encode() * 9999  # more than a pipe holds


def refuse(config: RunConfig) -> bytes:
    raise ValueError(config.name)


def wait_until_prepared(folder: Path) -> None:
    end_s = now_s() + DEADLINE_S
    while not (folder / "prepared").exists() or not (folder / "prepared").read_text():
        assert now_s() < end_s
        sleep(0.02)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(
        "replica", [*command(), "RUN.toml", "--fast"], tmp_path / "logs" / "replica.log", environment(tmp_path)
    )
    yield made
    made.clear_away()


def test_it_works_with_the_words_that_it_is_told(service: Service, tmp_path: Path) -> None:
    with started_early(run(tmp_path), {"replica": (command(), service.whole_environment())}) as early:
        wait_until_prepared(tmp_path)
        assert not service.log_path.exists()
        service.early = early["replica"]
        service.environment["TOLD"] = "a secret that came later"
        service.start()
        assert service.process is not None
        assert service.process.wait(DEADLINE_S) == 0
    assert (tmp_path / "prepared").read_text() == f"prepared for {run(tmp_path).name}\n"
    assert "arguments ['RUN.toml', '--fast'] told a secret that came later" in service.log_path.read_text()


def test_one_that_ended_before_its_word_is_started_in_the_usual_way(service: Service, tmp_path: Path) -> None:
    broken = service.whole_environment() | {"PREPARED": str(tmp_path / "no folder" / "prepared")}
    service.environment["TOLD"] = "again"
    with started_early(run(tmp_path), {"replica": (command(), broken)}) as early:
        service.early = early["replica"]
        end_s = now_s() + DEADLINE_S
        while service.early.is_waiting():
            assert now_s() < end_s
            sleep(0.02)
        service.start()
    assert service.process is not None
    assert service.process.wait(DEADLINE_S) == 0
    assert service.log_path.read_text().count("told again") == 1


def test_one_that_is_asked_answers_and_then_waits_for_its_word(service: Service, tmp_path: Path) -> None:
    commands = {name: (command(), service.whole_environment()) for name in ("replica", "silent")}
    with started_early(run(tmp_path), commands, {"replica": f"{__name__}:tell"}) as early:
        assert early["silent"].answer() == b""
        assert early["replica"].answer() == f"{run(tmp_path).name} in {tmp_path}/prepared".encode() * 9999
        service.early = early["replica"]
        service.environment["TOLD"] = "after its answer"
        service.start()
        assert service.process is not None
        assert service.process.wait(DEADLINE_S) == 0
    assert "told after its answer" in service.log_path.read_text()


def test_one_that_fails_to_answer_has_none_and_has_ended(service: Service, tmp_path: Path) -> None:
    commands = {"replica": (command(), service.whole_environment())}
    with started_early(run(tmp_path), commands, {"replica": f"{__name__}:refuse"}) as early:
        assert early["replica"].answer() == b""
        end_s = now_s() + DEADLINE_S
        while early["replica"].is_waiting():
            assert now_s() < end_s
            sleep(0.02)


def test_one_that_is_not_told_ends_with_the_block(service: Service, tmp_path: Path) -> None:
    with (
        suppress(ZeroDivisionError),
        started_early(run(tmp_path), {"replica": (command(), service.whole_environment())}) as early,
    ):
        wait_until_prepared(tmp_path)
        raise ZeroDivisionError
    assert not early["replica"].is_waiting()
    assert not service.log_path.exists()


def test_it_ends_when_what_started_it_is_gone(tmp_path: Path) -> None:
    """Whatever killed `ratchet up`: the pipe is closed, and nobody else could tell it to go."""
    settings = tmp_path / "settings.toml"
    settings.write_text(render(run(tmp_path)), encoding="utf-8")
    process = subprocess.Popen(
        command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(tmp_path, **{SETTINGS_VARIABLE: str(settings)}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with closing(process.stdout):
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
        assert process.stdout.read() == b""


def test_its_settings_are_for_this_user_alone(tmp_path: Path) -> None:
    with started_early(run(tmp_path), {"replica": (command(), environment(tmp_path))}) as early:
        wait_until_prepared(tmp_path)  # of a program that has just begun the kernel shows no environment
        shown = Path(f"/proc/{early['replica'].pid}/environ").read_bytes().split(b"\0")
        settings = Path(
            next(line.split(b"=", 1)[1] for line in shown if line.startswith(SETTINGS_VARIABLE.encode())).decode()
        )
        assert settings.parent.stat().st_mode & 0o077 == 0
    assert not settings.exists()
