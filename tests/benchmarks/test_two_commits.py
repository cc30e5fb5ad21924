"""Two commits of a repository are measured in turn, each with its own files, and nothing is left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ratios import Ratio
from benchmarks.two_commits import ROOT, checked_out, numbers, verdict

BENCHMARK = """
import json, os, pathlib
import speed
with open(os.environ["ORDER"], "a") as order:
    order.write(f"{speed.SECONDS} ")
pathlib.Path("found.json").write_text(json.dumps({"step": {"seconds": speed.SECONDS}, "rounds": [1, 2], "name": "x", "off": 0}))
"""


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: the second takes half of the time."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "bench.py").write_text(BENCHMARK, encoding="utf-8")
    for tag, seconds in (("slow", 0.5), ("fast", 0.25)):
        (folder / "speed.py").write_text(f"SECONDS = {seconds}\n", encoding="utf-8")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", tag)
        git(folder, "tag", tag)
    (folder / "speed.py").write_text("SECONDS = 99.0\n", encoding="utf-8")  # not committed
    return folder


def two_commits(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    own = ["--repository", str(repository), "--out", str(repository.parent / "out.json"), *arguments]
    environment = {**os.environ, "ORDER": str(repository.parent / "order"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.two_commits", *own],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_the_commits_take_turns_and_ratios_of_all_figures_are_told(repository: Path) -> None:
    done = two_commits(
        repository, "slow", "fast", "--rounds", "3", "--figures", "found.json", "--", "python", "bench.py"
    )
    assert done.returncode == 0, done.stderr
    assert "| step.seconds | 0.500 (0.500-0.500) | HEAD is lower |" in done.stdout
    assert "| rounds.1 | 1.000 (1.000-1.000) | no difference shown |" in done.stdout
    assert "| wall seconds |" in done.stdout
    assert "| processor seconds |" in done.stdout
    assert "| off |" not in done.stdout
    report = json.loads((repository.parent / "out.json").read_text(encoding="utf-8"))
    assert report["ratios"]["step.seconds"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert (repository.parent / "order").read_text(encoding="utf-8").split() == [
        *("0.25", "0.5"),  # not counted
        *("0.5", "0.25"),
        *("0.25", "0.5"),
        *("0.5", "0.25"),
    ]
    left = subprocess.run(
        ["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(left.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["slow", "never", "--", "python", "bench.py"], "never"),
        (["slow", "fast", "--", "python", "-c", "raise SystemExit('it broke')"], "it broke"),
        (["slow", "fast", "--figures", "no.json", "--", "python", "bench.py"], "has not written no.json"),
        (["slow", "fast"], "give a command after --"),
    ],
)
def test_what_cannot_be_measured_is_said_and_nothing_is_left_behind(
    repository: Path, arguments: list[str], said: str
) -> None:
    done = two_commits(repository, *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    left = subprocess.run(
        ["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(left.stdout.splitlines()) == 1


def test_a_commit_that_asks_for_other_packages_gets_an_environment_of_its_own(repository: Path) -> None:
    ready = ".venv/.ready:\n\tmkdir -p .venv/bin && cp /bin/true .venv/bin/python && touch $@\n"
    (repository / "Makefile").write_text(ready, encoding="utf-8")
    git(repository, "add", "Makefile")
    git(repository, "commit", "--quiet", "-m", "can be set up")
    git(repository, "tag", "before")
    (repository / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    git(repository, "add", "pyproject.toml")
    git(repository, "commit", "--quiet", "-m", "asks for more")
    with checked_out(repository, ["before", "HEAD"]) as (before, head):
        assert before.python == before.folder / ".venv/bin/python"  # the checkout has what HEAD asks for
        assert head.python == Path(sys.executable)


def test_numbers_have_dotted_places() -> None:
    assert dict(numbers({"a": [1, {"b": 2.5}], "c": True, "d": "x"})) == {"a.0": 1.0, "a.1.b": 2.5}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Ratio(1.2, 1.1, 1.3), "HEAD is higher"),
        (Ratio(0.8, 0.7, 0.9), "HEAD is lower"),
        (Ratio(1.1, 0.9, 1.3), "no difference shown"),
    ],
)
def test_an_interval_with_1_in_it_shows_no_difference(found: Ratio, said: str) -> None:
    assert verdict(found) == said
