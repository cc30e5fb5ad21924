"""What ended a service reaches the supervisor, whatever stands between the two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.cause import CAUSE_VARIABLE, Cause, disk_full, found, leave, make_room
from services.errors import DeadlineExceeded, DiskFull, InputError, StreamError

ENDING = """
import sys
from services import entry
from services.errors import *
def main():
    {body}
entry.end(main)
"""


def ended(path: Path, body: str) -> int:
    """The exit code of a service with this program."""
    environment = os.environ | {CAUSE_VARIABLE: str(path)}
    program = ENDING.format(body=body)
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, check=False, capture_output=True, timeout=60
    ).returncode


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_room(tmp_path / "cause")
    monkeypatch.setenv(CAUSE_VARIABLE, str(tmp_path / "cause"))
    return tmp_path / "cause"


@pytest.mark.parametrize(
    ("body", "code", "cause"),
    [
        ("raise InputError('no such row')", 2, Cause("no such row", "never", True)),
        ("raise StreamError('no answer')", 3, Cause("no answer", "often", False)),
        ("raise WeightSyncError('not equal')", 3, Cause("not equal", "once", False)),
        ("raise ValueError('oops')", 1, Cause("ValueError: oops", "once", False)),
    ],
)
def test_an_error_is_left_with_its_exit_code(tmp_path: Path, body: str, code: int, cause: Cause) -> None:
    make_room(tmp_path / "cause")
    assert ended(tmp_path / "cause", body) == code
    assert found(tmp_path / "cause") == cause


def test_a_full_disk_is_said_although_it_is_full(tmp_path: Path) -> None:
    make_room(tmp_path / "cause")
    assert ended(tmp_path / "cause", "open('/dev/full', 'w').write('x' * 100000)") == 3
    left = found(tmp_path / "cause")
    assert left is not None
    assert left.retry == "never"
    assert "no space is left on the disk" in left.message


def test_nothing_is_left_without_a_supervisor_or_by_a_service_that_is_done(tmp_path: Path) -> None:
    assert ended(tmp_path / "cause", "raise InputError('no such row')") == 2
    assert found(tmp_path / "cause") is None
    make_room(tmp_path / "cause")
    assert ended(tmp_path / "cause", "return 0") == 0
    assert found(tmp_path / "cause") is None


def test_the_first_error_of_several_ranks_stays_unless_a_later_one_ends_every_try(room: Path) -> None:
    leave(ValueError("the first"))
    leave(DeadlineExceeded("other ranks", late_s=1.0))
    left = found(room)
    assert left is not None
    assert left.message == "ValueError: the first"
    leave(InputError("other ranks than before"))
    leave(InputError("a later one"))
    assert found(room) == Cause("other ranks than before", "never", True)


def test_the_next_start_begins_without_a_cause(room: Path) -> None:
    leave(InputError("wrong"))
    make_room(room)
    assert found(room) is None


def test_a_long_error_keeps_its_beginning(room: Path) -> None:
    leave(InputError("wrong " + "\x01" * 100_000))
    left = found(room)
    assert left is not None
    assert left.message.startswith("wrong ")


def test_the_same_error_may_name_other_numbers() -> None:
    first, again, other = (Cause(text, "once", False) for text in ("port 1 at 0x7f", "port 2 at 0x8a", "no port"))
    assert again.repeats(first)
    assert not other.repeats(first)
    assert not first.repeats(None)


def test_an_error_that_comes_from_a_full_disk_is_one() -> None:
    try:
        try:
            raise OSError(28, "No space left on device", "/runs/x")
        except OSError as fault:
            raise RuntimeError("checkpoint failed") from fault
    except RuntimeError as fault:
        full = disk_full(fault)
    assert isinstance(full, DiskFull)
    assert "/runs/x" in str(full)
    assert disk_full(RuntimeError("I/O error: No space left on device (os error 28)")) is not None
    assert disk_full(StreamError("no answer")) is None
