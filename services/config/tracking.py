"""[tracking]: where the figures of a run go besides its own files and TensorBoard."""

import importlib.util
from typing import Self

from pydantic import model_validator

from services.config.base import Strict
from services.errors import InputError

PACKAGES = {"wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
"""Key of [tracking] -> the package that it needs."""


class TrackingConfig(Strict):
    """Each key sends the figures of steps and evaluations to one more tracker. A tracker that fails is a warning."""

    wandb: str | None = None
    """Project at Weights & Biases, as "project" or "team/project". It reads its key and mode from the environment (WANDB_API_KEY,
    WANDB_MODE). Needs the package wandb."""
    trackio: str | None = None
    """Project of trackio, which keeps it on this machine. Needs the package trackio."""
    mlflow: str | None = None
    """URI of an MLflow server, such as "http://tracking:5000", or "sqlite:////data/mlflow.db" for a local file. The experiment is
    MLFLOW_EXPERIMENT_NAME, or ratchet. Needs the package mlflow or mlflow-skinny."""

    @model_validator(mode="after")
    def names_are_not_empty(self) -> Self:
        for key in PACKAGES:
            value = getattr(self, key)
            if value is not None and not value.strip():
                raise ValueError(f"{key} is empty; leave it out, or give it a value")
        if self.mlflow is not None and "://" not in self.mlflow and self.mlflow != "databricks":
            raise ValueError(
                f'mlflow = "{self.mlflow}" is not a tracking URI; give one like http://HOST:5000 or sqlite:////data/mlflow.db'
            )
        return self

    def chosen(self) -> dict[str, str]:
        """Key -> value, of the trackers that are set."""
        return {key: value for key in PACKAGES if (value := getattr(self, key)) is not None}

    def check_packages(self) -> None:
        """Raises InputError if a tracker is set whose package is not installed. Imports none of them."""
        missing = [key for key in self.chosen() if importlib.util.find_spec(PACKAGES[key]) is None]
        if missing:
            names = " and ".join(f"tracking.{key}" for key in missing)
            install = " ".join(PACKAGES[key] for key in missing)
            raise InputError(
                f"{names} {'needs a package that is' if len(missing) == 1 else 'need packages that are'} not installed here; "
                f"`pip install {install}` into the learner's environment, or leave the setting out"
            )
