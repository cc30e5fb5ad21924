"""The names by which the command line knows the other rooms are names of modules."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.command import rooms


@pytest.mark.parametrize(
    "module",
    [
        rooms.ROLLOUT,
        rooms.VERIFIER,
        rooms.LEARNER,
        rooms.VERIFY,
        rooms.CHECK_REFERENCES,
        rooms.CHECK_OBJECTIVE,
        rooms.CHECK_ENVIRONMENT,
    ],
)
def test_every_name_is_that_of_a_module_that_runs(module: str) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None
    if found.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", ["services", "redis", "random", "learner/__init__"])
def test_a_module_of_the_users_in_the_working_directory_is_not_taken_for_another(tmp_path: Path, name: str) -> None:
    """Not by the process, nor by a Python that it starts, as torchrun, vLLM and multiprocessing do."""
    mine = tmp_path / f"{name}.py"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("raise SystemExit('this is mine')\n", encoding="utf-8")
    grandchild = [sys.executable, "-c", "import services.entry, redis, random"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "starter.py").write_text(
        f"import learner.objective.check, subprocess, sys; sys.exit(subprocess.run({grandchild!r}).returncode)",
        encoding="utf-8",
    )
    environment = {**os.environ, **rooms.SAFE_PATH, "PYTHONPATH": str(tmp_path / "elsewhere")}
    started = subprocess.run(
        rooms.python_module("starter"), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (started.returncode, started.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments", [["verify", "--help"], ["learner", "--help"], ["rollout", "--help"], ["doctor", "--help"]]
)
def test_the_command_runs_beside_modules_of_the_users(tmp_path: Path, arguments: list[str]) -> None:
    for name in ("services", "redis", "random", "verifier", "learner", "rollout"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is mine')\n", encoding="utf-8")
    ratchet = Path(sys.executable).parent / "ratchet"
    said = subprocess.run([ratchet, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "usage" in said.stdout


def test_a_module_runs_with_this_python() -> None:
    said = subprocess.run(rooms.python_module("json.tool", "--help"), capture_output=True, text=True, check=True)
    assert "usage" in said.stdout
    assert rooms.python_module("m")[0] == sys.executable
