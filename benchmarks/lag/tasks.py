"""The tasks by name."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.lag.chain import chain
from benchmarks.lag.task import Task, addition

MODELS = Path(__file__).resolve().parents[2] / "runs" / "lag" / "models"
TASKS: dict[str, Callable[[], Task]] = {"addition": addition, "chain": lambda: chain(MODELS)}
"""Called, a task builds its models where there are none."""
