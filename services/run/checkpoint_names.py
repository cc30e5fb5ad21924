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
    return int(checkpoint.name.removeprefix(PREFIX))


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints that have their final name, oldest first."""
    return sorted(folder.glob(PREFIX + "*"))


def latest_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint; None if there is none."""
    whole = {path.name.removeprefix(REPLACED): path for path in folder.glob(f"{REPLACED}{PREFIX}*")}
    whole |= {path.name: path for path in checkpoints_in(folder)}
    return whole[max(whole)] if whole else None
