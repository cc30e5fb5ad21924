"""The rows that runs leave: one JSON object a line, appended whole, so that several processes may share the file."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """What tells one row from another."""

    task: str
    method: str
    lag: int
    seed: int


@dataclass(frozen=True, slots=True)
class Row:
    task: str
    method: str
    lag: int
    seed: int
    accuracy_start: float
    accuracy_end: float
    collapsed_at_step: int | None
    ess_ratio_mean: float
    steps: int
    samples: int
    wall_seconds: float
    commit: str
    accuracy_mean: float
    """Over the run: of all looks at the held-out problems but the first. It tells apart methods that all end at 1."""

    @property
    def run(self) -> Run:
        return Run(self.task, self.method, self.lag, self.seed)


LOGS = Path(__file__).resolve().parents[2] / "runs" / "lag"
"""What each step of a run did, a file a run, as far as runs of this machine left them."""


def log_path(run: Run, steps: int) -> Path:
    return LOGS / f"{run.task}-{run.method}-lag{run.lag}-seed{run.seed}-{steps}steps.jsonl"


def read(path: Path) -> list[Row]:
    """A last line that a crash cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(Row(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return rows


def append(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut_off else "") + json.dumps(asdict(row)) + "\n")


def missing(wanted: Iterable[Run], rows: Iterable[Row], steps: int) -> list[Run]:
    """Those without a row of as many steps, in the order wanted."""
    have = {row.run for row in rows if row.steps == steps}
    return [run for run in wanted if run not in have]
