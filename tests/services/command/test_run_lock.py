"""A run's folder is used by one command at a time."""

from pathlib import Path

import pytest

from services.command.run_lock import locked
from services.errors import InputError
from services.run.folder import RunFolder
from tests.services.command.running import in_use


def test_a_folder_is_made_held_and_let_go(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "try")
    for _ in range(2):
        with locked(folder):
            assert folder.path.is_dir()
            with pytest.raises(InputError, match="in use by another"), locked(folder):
                raise AssertionError("two processes held the same folder")


def test_a_folder_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    with in_use(tmp_path), pytest.raises(InputError, match="choose another name"), locked(RunFolder(tmp_path)):
        raise AssertionError("two processes held the same folder")


def test_a_folder_that_cannot_be_created_gets_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with (
        pytest.raises(InputError, match=r"runs/try cannot be written: Not a directory; choose another runs_folder"),
        locked(RunFolder(tmp_path / "runs" / "try")),
    ):
        raise AssertionError("the folder was created inside a file")


def test_an_error_of_the_caller_is_not_reported_as_an_error_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), locked(RunFolder(tmp_path)):
        raise OSError("disk")
