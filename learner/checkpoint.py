"""Checkpoints of the run: weights, optimizer, reference, ledger and counts, saved together or not at all.

A checkpoint is written under a temporary name and renamed when every byte is on disk, so any that can be found is whole. One
that is saved again is first renamed aside, and one that is deleted loses its name first: whenever the process ends, there is
a whole checkpoint to find. What happens to the disk later is found by digests (services/run/checkpoint_files.py).
"""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from services.errors import InputError
from services.run.checkpoint_files import STATE, check_whole, read_object, write_state
from services.run.checkpoint_names import REPLACED, checkpoint_name, checkpoints_in, policy_version_of

WRITING = ".writing-"
"""Prefix of a checkpoint that is not whole yet."""
DELETED = ".deleted-"
"""Prefix of a checkpoint of which parts may be gone."""
DAMAGED = "damaged-"
"""Prefix of a checkpoint that an earlier one was gone on from, because it is damaged. The next commit deletes it."""
SCHEMA = 2
EARLIER_SCHEMAS = (1,)
"""What ratchet 0.1.0 wrote, which is still read."""


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
    """The folder `checkpoints` of a run. `begin`, then `commit` or `abandon`; one at a time."""

    def __init__(self, folder: Path, keep: int, best: Callable[[], Collection[Path]] = tuple) -> None:
        """keep: how many of the newest are kept. best: those that are kept besides, asked at each commit."""
        self._folder = folder
        self._keep = keep
        self._best = best

    def begin(self, policy_version: int) -> Path:
        """Make an empty folder to write into, and clear away what a crash left behind."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for replaced in self._folder.glob(REPLACED + "*"):
            final = self._folder / replaced.name.removeprefix(REPLACED)
            _delete(replaced) if final.exists() else replaced.rename(final)
        for left_over in [*self._folder.glob(WRITING + "*"), *self._folder.glob(DELETED + "*")]:
            shutil.rmtree(left_over)
        folder = self._folder / f"{WRITING}{policy_version:08d}"
        folder.mkdir()
        return folder

    def abandon(self, staging: Path) -> None:
        """Delete what was written after an error: the disk may be full."""
        shutil.rmtree(staging, ignore_errors=True)

    def commit(self, staging: Path, policy_version: int, state: dict[str, Any]) -> Path:
        """Add the state, make everything durable, give the checkpoint its name, and delete those that nothing needs: all but the
        newest and the best ones."""
        write_state(staging, {"schema": SCHEMA, **state})
        for path in [*staging.rglob("*"), staging]:
            make_durable(path)
        final = self._folder / checkpoint_name(policy_version)
        if final.exists():  # the same step, saved again at the end of a run
            final.rename(self._folder / f"{REPLACED}{final.name}")
        staging.rename(final)
        make_durable(self._folder)
        best = set(self._best())
        beyond = [old for old in checkpoints_in(self._folder)[: -self._keep] if old not in best]
        for old in [*self._folder.glob(REPLACED + "*"), *self._folder.glob(DAMAGED + "*"), *beyond]:
            _delete(old)
        return final

    def put_aside_newer(self, than: Path) -> None:
        """Take their names from the checkpoints after the one that the run goes on from: they are damaged, and a newer one would
        count as the newest."""
        for newer in checkpoints_in(self._folder):
            if policy_version_of(newer) > policy_version_of(than):
                aside = self._folder / f"{DAMAGED}{newer.name}"
                shutil.rmtree(aside, ignore_errors=True)
                newer.rename(aside)

    @staticmethod
    def state(checkpoint: Path) -> Saved:
        """Read the state. Raises InputError if a file of the checkpoint is missing or cut off, and if another version of ratchet
        wrote it: now, or when a missing key is asked for."""
        state = read_json(checkpoint, STATE)
        if state.get("schema") not in (SCHEMA, *EARLIER_SCHEMAS):
            raise InputError(
                f"{checkpoint} has schema {state.get('schema')}, this version of ratchet reads {SCHEMA}; "
                "resume with the version that wrote it, or start a run under another name"
            )
        check_whole(checkpoint)
        return state


def export_beside(final: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder next to `final`, then put that folder in its place."""
    staging = final.with_name(f"{WRITING}{final.name}")
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


def make_durable(path: Path) -> None:
    """Return once the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
