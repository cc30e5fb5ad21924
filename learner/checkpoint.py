"""Checkpoints of the run: weights, optimizer, reference, ledger and counts, saved together or not at all.

A checkpoint is written under a temporary name and renamed when every byte is on disk, so any that can be found is whole. One
that is saved again is first renamed aside, and one that is deleted loses its name first: whenever the process ends, there is
a whole checkpoint to find.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from services.errors import InputError
from services.run.checkpoint_files import STATE, check_whole, read_object, sizes
from services.run.checkpoint_names import REPLACED, checkpoint_name, checkpoints_in
from services.run.json_text import json_text

DELETED = ".deleted-"
"""Prefix of a checkpoint of which parts may be gone."""
SCHEMA = 1


class Saved(dict[str, Any]):
    """A JSON object of a checkpoint, and the objects inside it. A missing key raises InputError: without it the run cannot be
    continued."""

    def __init__(self, checkpoint: Path, values: dict[str, Any], place: str = "") -> None:
        """place: where `values` is, such as "state.json: ledger."."""
        inside = {
            key: Saved(checkpoint, value, f"{place}{key}.") if isinstance(value, dict) else value
            for key, value in values.items()
        }
        super().__init__(inside)
        self._checkpoint = checkpoint
        self._place = place

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"the checkpoint {self._checkpoint} has no {self._place}{key}: another version of ratchet wrote it; "
            "resume with the version that wrote it, or start a new run from its export"
        )


def read_json(checkpoint: Path, name: str) -> Saved:
    """Read a JSON file of a checkpoint. Raises InputError if it is damaged."""
    return Saved(checkpoint, read_object(checkpoint, name), f"{name}: ")


class Checkpoints:
    """The folder `checkpoints` of a run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    @contextlib.contextmanager
    def staging(self, policy_version: int) -> Iterator[Path]:
        """Make an empty folder to write into, and clear away what a crash left behind. After an error it is deleted: the disk
        may be full."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for replaced in self._folder.glob(REPLACED + "*"):
            final = self._folder / replaced.name.removeprefix(REPLACED)
            _delete(replaced) if final.exists() else replaced.rename(final)
        for left_over in [*self._folder.glob(".writing-*"), *self._folder.glob(DELETED + "*")]:
            shutil.rmtree(left_over)
        folder = self._folder / f".writing-{policy_version:08d}"
        folder.mkdir()
        try:
            yield folder
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def commit(self, staging: Path, policy_version: int, state: dict[str, Any]) -> Path:
        """Add the state, make everything durable, give the checkpoint its name, and delete the oldest ones beyond `keep`."""
        content = {"schema": SCHEMA, "files": sizes(staging), **state}
        (staging / STATE).write_text(json_text(content), encoding="utf-8")
        for path in [*staging.rglob("*"), staging]:
            _sync(path)
        final = self._folder / checkpoint_name(policy_version)
        if final.exists():  # the same step, saved again at the end of a run
            final.rename(self._folder / f"{REPLACED}{final.name}")
        staging.rename(final)
        _sync(self._folder)
        for old in [*self._folder.glob(REPLACED + "*"), *checkpoints_in(self._folder)[: -self._keep]]:
            _delete(old)
        return final

    @staticmethod
    def state(checkpoint: Path) -> Saved:
        """Read the state. Raises InputError if a file of the checkpoint is missing or cut off, and if another version of ratchet
        wrote it: now, or when a missing key is asked for."""
        state = read_json(checkpoint, STATE)
        if state.get("schema") != SCHEMA:
            raise InputError(
                f"{checkpoint} has schema {state.get('schema')}, this version of ratchet reads {SCHEMA}; "
                "resume with the version that wrote it, or start a run under another name"
            )
        check_whole(checkpoint)
        return state


def export_beside(final: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder next to `final`, then put that folder in its place."""
    staging = final.with_name(f".writing-{final.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    write(staging)
    if final.exists():
        _delete(final)
    staging.rename(final)


def _delete(folder: Path) -> None:
    """Delete a folder so that never a part of it is found under its name."""
    deleted = folder.with_name(f"{DELETED}{folder.name}")
    shutil.rmtree(deleted, ignore_errors=True)
    folder.rename(deleted)
    shutil.rmtree(deleted)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
