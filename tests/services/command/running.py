"""A run that nothing has to be started for: its settings, and what stands in for its services."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from services.command.early_start import EarlyProcess
from services.command.run_processes import NONE_EARLY, RunRedis
from services.config import RunConfig
from services.config.load import load
from services.entry import INTERRUPTED
from tests.services.config.test_load import SMALLEST


class Recording:
    """Instead of services: what is in the run's folder when they would be started, each time."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def __call__(
        self,
        config: RunConfig,
        redis: RunRedis,
        console: Console,
        learner_options: Sequence[str] = (),
        known: Sequence[str] = (),
        early: Mapping[str, EarlyProcess] = NONE_EARLY,
    ) -> int:
        self.seen.append(sorted(path.name for path in config.folder.iterdir()))
        (config.folder / "left-over").touch()
        return INTERRUPTED


def run(tmp_path: Path, *overrides: str) -> RunConfig:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(tmp_path / "run.toml", [f"runs_folder={tmp_path}/runs", *overrides])


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Another process holds the folder."""
    program = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(); input()"
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.kill()
