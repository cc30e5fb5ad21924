"""TensorBoard: event files in the run's folder."""

from collections.abc import Mapping
from pathlib import Path


class TensorBoard:
    """Writes scalars of TensorBoard."""

    def __init__(self, folder: Path, policy_version: int) -> None:
        """policy_version: the one that this start begins with; steps that an earlier start took after it are forgotten."""
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(folder), purge_step=policy_version + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._events.add_scalar(name, value, step)
        if any(name.startswith("evaluation/") for name in figures):
            self._events.flush()

    def close(self) -> None:
        self._events.close()
