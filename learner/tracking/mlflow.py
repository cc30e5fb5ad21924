"""MLflow."""

import os
import time
from collections.abc import Mapping
from typing import Any

from learner.tracking.finite import finite_only
from learner.tracking.tracker import TrackedRun

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT = "ratchet"
TAG = "ratchet.tracking_id"
LONGEST_VALUE = 500
"""Characters of a setting that MLflow surely takes."""
PARAMETERS_AT_ONCE = 100


class MLflow:
    """One run of an experiment; a resumed run goes on in it."""

    def __init__(self, uri: str, run: TrackedRun) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric: Any = Metric
        self._client: Any = MlflowClient(tracking_uri=uri)
        name = os.environ.get(EXPERIMENT_VARIABLE) or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        earlier = self._client.search_runs([experiment], f"tags.`{TAG}` = '{run.tracking_id}'")
        if earlier:
            self._run_id = earlier[0].info.run_id
            self._client.set_terminated(self._run_id, status="RUNNING")
            return
        self._run_id = self._client.create_run(experiment, run_name=run.name, tags={TAG: run.tracking_id}).info.run_id
        settings = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in run.settings.items()]
        for first in range(0, len(settings), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run_id, params=settings[first : first + PARAMETERS_AT_ONCE])

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(name, value, now_ms, step) for name, value in finite_only(figures).items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)
