"""trackio, which keeps runs on this machine."""

from collections.abc import Mapping
from typing import Any

from learner.tracking.finite import finite_only
from learner.tracking.tracker import TrackedRun


class Trackio:
    """One run of a project. Its name has the run's id, because trackio knows runs by their names."""

    def __init__(self, project: str, run: TrackedRun) -> None:
        import trackio

        self._run: Any = trackio.init(
            project=project, name=f"{run.name}-{run.tracking_id}", config=dict(run.settings), resume="allow"
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(finite_only(figures), step=step)

    def close(self) -> None:
        self._run.finish()
