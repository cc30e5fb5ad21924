"""Which trackers a run has. Each is imported only when it is set."""

import secrets
from functools import partial
from pathlib import Path

from learner.tracking.outbox import Outbox
from learner.tracking.tracker import TrackedRun, Tracker
from services.config import RunConfig
from services.config.load import masked_settings
from services.run.folder import RunFolder
from services.run.history import flat


def open_trackers(config: RunConfig) -> list[Outbox]:
    """The trackers that [tracking] sets, each behind an outbox. Their packages are there: TrackingConfig.check_packages."""
    chosen = config.tracking.chosen()
    if not chosen:
        return []
    folder = RunFolder(config.folder)
    run = TrackedRun(config.name, tracking_id(folder), flat(masked_settings(config)), folder.path)
    openers = {"wandb": _wandb, "trackio": _trackio, "mlflow": _mlflow}
    return [Outbox(f"tracking.{key}", partial(openers[key], value, run)) for key, value in chosen.items()]


def tensorboard_of(folder: Path, policy_version: int) -> Outbox:
    """TensorBoard, which every run has."""

    def opened() -> Tracker:
        from learner.tracking.tensorboard import TensorBoard

        return TensorBoard(folder, policy_version)

    return Outbox("TensorBoard", opened)


def tracking_id(folder: RunFolder) -> str:
    """The run's id for trackers, made at its first start."""
    if not folder.tracking_id.exists():
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.tracking_id.write_text(secrets.token_hex(4), encoding="utf-8")
    return folder.tracking_id.read_text(encoding="utf-8").strip()


def _wandb(project: str, run: TrackedRun) -> Tracker:
    from learner.tracking.weights_and_biases import WeightsAndBiases

    return WeightsAndBiases(project, run)


def _trackio(project: str, run: TrackedRun) -> Tracker:
    from learner.tracking.trackio import Trackio

    return Trackio(project, run)


def _mlflow(uri: str, run: TrackedRun) -> Tracker:
    from learner.tracking.mlflow import MLflow

    return MLflow(uri, run)
