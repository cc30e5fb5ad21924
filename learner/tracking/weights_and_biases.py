"""Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from learner.tracking.finite import finite_only
from learner.tracking.tracker import TrackedRun


class WeightsAndBiases:
    """One run of a project. A resumed run goes on in it; steps that are taken again are there twice, by `policy_version`."""

    def __init__(self, project: str, run: TrackedRun) -> None:
        """project: "project" or "team/project"."""
        import wandb

        entity, _, name = project.rpartition("/")
        # Figures come from a thread, so it must neither take over signals nor the console.
        settings = wandb.Settings(console="off", silent=True)
        self._run: Any = wandb.init(
            project=name,
            entity=entity or None,
            name=run.name,
            id=run.tracking_id,
            resume="allow",
            config=dict(run.settings),
            dir=str(run.folder),
            settings=settings,
        )
        self._run.define_metric("*", step_metric="policy_version")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({"policy_version": step, **finite_only(figures)})

    def close(self) -> None:
        self._run.finish()
