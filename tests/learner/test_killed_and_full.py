"""Checkpoints of processes that are killed at any instant, and on disks that are full, are whole or absent."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OWN_MOUNTS = ["unshare", "--map-root-user", "--mount"]
"""A name space in which a small disk can be mounted without being root."""


def told(*command: str) -> list[dict[str, Any]]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("version", [7, 8])
def test_a_writer_that_is_killed_at_any_operation_leaves_a_whole_checkpoint(tmp_path: Path, version: int) -> None:
    """7: the same step is saved again; 8: a new one, and the old one is deleted."""
    found = told(sys.executable, "-m", "tests.learner.killed_writer", str(tmp_path), str(version))
    killed = [trial for trial in found if trial["killed"]]
    assert len(killed) > 15
    assert {trial["survived"] for trial in killed} == {"first", "second"}
    assert found[-1]["survived"] == "second"
    assert {trial["after"] for trial in found} == {"third"}
    assert all(trial["left"] == [f"step-{version:08d}"] for trial in found)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("disk")
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk (unshare --mount)")
    script = 'mount -t tmpfs -o size=1m disk "$0" && exec "$1" -m tests.learner.full_disk "$0"'
    return told(*OWN_MOUNTS, "sh", "-c", script, str(folder), sys.executable)


def test_a_disk_that_is_full_at_any_byte_costs_the_new_checkpoint_alone(small_disk: list[dict[str, Any]]) -> None:
    outcomes = {bool(trial["error"]) for trial in small_disk}
    assert outcomes == {False, True}
    for trial in small_disk[:-1]:
        whole = ["step-00000001"] if trial["error"] else ["step-00000001", "step-00000002"]
        assert (trial["newest"], trial["left"]) == (whole[-1], whole), trial


def test_a_full_disk_is_named_in_one_sentence_with_what_to_do(small_disk: list[dict[str, Any]]) -> None:
    for trial in small_disk:
        if trial["error"]:
            assert trial["error"].startswith("no space is left on the disk"), trial
            assert trial["error"].endswith("it resumes from the last whole checkpoint"), trial


def test_once_there_is_room_checkpoints_are_written_again(small_disk: list[dict[str, Any]]) -> None:
    assert small_disk[-1]["newest"] == "step-00000002"
