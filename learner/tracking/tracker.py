"""What a tracker is to the learner."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Takes figures by name. May raise anything, and take any time: outbox.py stands before it."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of one policy version. A figure may be nan or infinite."""

    def close(self) -> None:
        """Finish what was taken."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it is opened."""

    name: str
    tracking_id: str
    """The same for every start of one run, and different for each run."""
    settings: Mapping[str, Any]
    """The resolved settings by dotted name, without passwords."""
    folder: Path
    """The run's folder, for a tracker that keeps files."""
