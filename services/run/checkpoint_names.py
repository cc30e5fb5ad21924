"""The names of checkpoints: `step-00000040` is the folder of the state after 40 optimizer steps."""

from pathlib import Path

PREFIX = "step-"
REPLACED = ".replaced-"
"""Prefix of a whole checkpoint whose name a newer one takes."""


def checkpoint_name(policy_version: int) -> str:
    """Names sort in the order of their versions."""
    return f"{PREFIX}{policy_version:08d}"


def policy_version_of(checkpoint: Path) -> int:
    """The version that a checkpoint's name says."""
    return int(checkpoint.name.removeprefix(REPLACED).removeprefix(PREFIX))


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints that have their final name, oldest first."""
    return sorted(folder.glob(PREFIX + "*"))


def checkpoints_and_replaced(folder: Path) -> list[Path]:
    """As `checkpoints_in`, with those whose name was taken by a newer one that did not get it, because the learner was killed."""
    found = {path.name.removeprefix(REPLACED): path for path in folder.glob(f"{REPLACED}{PREFIX}*")}
    found |= {path.name: path for path in checkpoints_in(folder)}
    return [found[name] for name in sorted(found)]


def latest_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint, damaged or not; None if there is none."""
    found = checkpoints_and_replaced(folder)
    return found[-1] if found else None
