"""What scripts/setup.sh says when it cannot do its work; each in a small copy of the project without a network."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9/simple"  # nothing listens at the discard port


def write_tool(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As set-up makes it, once: it takes seconds."""
    folder = tmp_path_factory.mktemp("made") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, empty_venv: Path) -> Path:
    """What set-up reads, and the environment as the first of its steps leaves it."""
    for path in ("scripts/setup.sh", "requirements/cpu.lock", "pyproject.toml"):
        (tmp_path / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / "clone" / path)
    # PyTorch's own index is not to be asked either.
    script = tmp_path / "clone/scripts/setup.sh"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("https://download.pytorch.org/whl/cpu", NOWHERE), encoding="utf-8")
    shutil.copytree(empty_venv, tmp_path / "clone/.venv", symlinks=True)
    return tmp_path / "clone"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Without a way to any package; `tools` comes before everything else on PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "XDG_"))}
    kept |= {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}"}
    (tmp_path / "home").mkdir()
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": NOWHERE, "PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "60"}
    return kept | pip | {"PYTHON": sys.executable}


def set_up(checkout: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "scripts/setup.sh")], check=False, env=environment, capture_output=True, text=True, timeout=120
    )


def first_lines(checkout: Path, environment: dict[str, str], *, until: str) -> list[str]:
    """What it says up to a line, where it is ended."""
    process = subprocess.Popen(
        [str(checkout / "scripts/setup.sh")], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if until in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return lines


def test_without_a_network_it_says_what_failed_and_that_the_same_command_goes_on(
    checkout: Path, environment: dict[str, str]
) -> None:
    said = set_up(checkout, environment)
    assert said.returncode == 1
    assert "installing torch==2.13.0 failed" in said.stderr
    assert "check that it leads to a Python package index" in said.stderr
    assert "the same command goes on where this one stopped" in said.stderr
    assert not (checkout / ".venv/.ready").exists()
    assert first_lines(checkout, environment, until="installing torch") == ["setup: installing torch==2.13.0+cpu"]


def test_a_disk_without_room_is_refused_before_anything_is_made(
    checkout: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    shutil.rmtree(checkout / ".venv")
    write_tool(tmp_path / "tools", "df", 'echo "Filesystem 1M Used Available"; echo "disk 1000 300 700 30% /"')
    said = set_up(checkout, environment)
    assert said.returncode == 1
    assert "has 700 MiB free, and .venv needs 3584" in said.stderr
    assert not (checkout / ".venv").exists()


def test_a_disk_that_fills_up_on_the_way_is_named(checkout: Path, environment: dict[str, str], tmp_path: Path) -> None:
    seen = tmp_path / "asked"
    write_tool(
        tmp_path / "tools",
        "df",
        f'echo "Filesystem 1M Used Available"; if [ -e {seen} ]; then echo "disk 9000 9000 3 100% /"; '
        f'else touch {seen}; echo "disk 9000 0 9000 0% /"; fi',
    )
    script = checkout / "scripts/setup.sh"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("need_room $((needed_mib + needed_gpu_build))", "true"), encoding="utf-8")
    said = set_up(checkout, environment)
    assert said.returncode == 1
    assert "the disk is full" in said.stderr
    assert "has 3 MiB free" in said.stderr


@pytest.fixture
def index_that_never_answers() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_what_was_interrupted_starts_over(
    checkout: Path, environment: dict[str, str], index_that_never_answers: str, by: signal.Signals
) -> None:
    # A shell that runs the tests in the background leaves SIGINT ignored, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting = subprocess.Popen(
        [str(checkout / "scripts/setup.sh")],
        env=environment | {"PIP_INDEX_URL": index_that_never_answers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert waiting.stdout is not None
    for line in waiting.stdout:
        if "installing torch" in line:
            break
    time.sleep(0.5)  # until pip has begun
    os.killpg(waiting.pid, by)
    _, errors = waiting.communicate(timeout=60)
    if by == signal.SIGINT:
        assert waiting.returncode == 1
        assert "interrupted; the same command starts over" in errors
    said = first_lines(checkout, environment, until="making .venv")
    assert said[0] == "setup: the last set-up was interrupted; starting over"


def test_the_second_of_two_at_once_waits(
    checkout: Path, environment: dict[str, str], index_that_never_answers: str
) -> None:
    first = subprocess.Popen(
        [str(checkout / "scripts/setup.sh")],
        env=environment | {"PIP_INDEX_URL": index_that_never_answers},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert first.stdout is not None
    for line in first.stdout:
        if "installing torch" in line:
            break
    second = subprocess.Popen(
        [str(checkout / "scripts/setup.sh")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert second.stdout is not None
    assert "another set-up is at work in this folder" in second.stdout.readline()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    assert "the last set-up was interrupted; starting over" in second.stdout.readline()
    second.kill()
    second.communicate()


def test_a_machine_without_libnuma_is_told_what_to_install(
    checkout: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    script = checkout / "scripts/setup.sh"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("libnuma.so.1", "libnuma-of-nobody.so.1"), encoding="utf-8")
    write_tool(tmp_path / "tools", "apt-get", "exit 1")
    said = set_up(checkout, environment)
    assert said.returncode == 1
    assert "vLLM needs libnuma-of-nobody.so.1" in said.stderr
    assert "As root: apt-get install libnuma1 (Debian, Ubuntu)" in said.stderr
