"""The README's commands, run as they stand in a copy of what a reader has."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.curl import answer_to
from tests.system.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*) ?([\w.-]*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, _, body in BLOCKS if language == "bash" for line in body.splitlines()]
FILES = {name: body for _, name, body in BLOCKS if name}
EVAL = ".venv/bin/ratchet eval my-run.toml --model runs/my-run/export"
ELSEWHERE = {
    "make demo": "test_run.py, whose second start it is",
    "make test": "this is it",
    EVAL: "test_run.py, of the bundled example: it starts an engine for half a minute",
}


@pytest.fixture(scope="module")
def reader(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reader's own files and links to the project's."""
    folder = tmp_path_factory.mktemp("reader")
    for name in (".venv", "examples"):
        (folder / name).symlink_to(ROOT / name)
    for name, body in FILES.items():
        (folder / name).write_text(body, encoding="utf-8")
    return folder


@pytest.fixture
def verifier(reader: Path, environment: dict[str, str]) -> Iterator[None]:
    command = next(line for line in COMMANDS if line.startswith(".venv/bin/ratchet verifier"))
    with subprocess.Popen(
        shlex.split(command), cwd=reader, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "scoring" not in process.stderr.readline():
            assert process.poll() is None
        yield
        process.terminate()
        assert process.wait(timeout=30) == 0


def run(command: str, folder: Path, environment: dict[str, str], within_s: float = 240) -> str:
    result = subprocess.run(
        command, shell=True, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=within_s
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_every_command_is_run_by_a_test() -> None:
    own = {line for line in COMMANDS if line.startswith((".venv/bin/ratchet", "curl"))} - {EVAL}
    assert set(COMMANDS) == own | set(ELSEWHERE)
    assert len(own) == 7


def test_your_own_problems(reader: Path, environment: dict[str, str]) -> None:
    """config, up, status, verify and doctor, in the reader's order."""
    said = {
        command: run(command, reader, environment)
        for command in COMMANDS
        if command.startswith(".venv/bin/ratchet") and " verifier " not in command and command != EVAL
    }
    assert (reader / "runs/my-run/export/config.json").exists()
    assert (reader / "runs/my-run/summary.json").exists()
    assert "agreement 100.00 % (3 of 3)" in next(output for command, output in said.items() if " verify " in command)


def test_the_verifier_alone(reader: Path, environment: dict[str, str], verifier: None) -> None:
    command = next(line for line in COMMANDS if line.startswith("curl"))
    assert '"verdict":"correct"' in answer_to(command).replace(" ", "")
