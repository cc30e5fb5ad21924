"""The figures of a run's steps as columns, of which a browser gets those that it does not have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.run.tail import Tail

FIGURES = (
    "step",
    "at_unix_s",
    "pass_rate",
    "mean_reward",
    "entropy",
    "ess_ratio",
    "mean_lag_steps",
    "max_lag_steps",
    "lr_factor",
    "grad_norm",
    "mean_response_tokens",
    "cut_fraction",
    "zero_variance_fraction",
    "tokens",
    "seconds",
    "waited_s",
    "sampled_tokens",
)
MOST_POINTS = 600
"""A browser that has nothing yet gets this many steps, evenly spread, and the newest 50 of them all."""
NEWEST = 50
MOST_KEPT = 20_000
"""Beyond this many steps every second one of the older half is forgotten; steps.jsonl has them all."""
DIGITS = 5


class Curves:
    """Follows steps.jsonl. A later start that resumes from a checkpoint replaces the steps that it takes again."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path).from_the_start()
        self._rows: list[list[float | None]] = []
        self.newest: Mapping[str, Any] | None = None
        """The last row, with all of its figures."""
        self.revision = 0
        """Grows when steps are replaced: then a browser has to forget what it has."""

    def read(self) -> None:
        """Take in what was written since the last call."""
        for row in self._tail.rows():
            if not isinstance(row.get("step"), int):
                continue
            if self._rows and row["step"] <= (self._rows[-1][0] or 0):
                self._rows = [one for one in self._rows if (one[0] or 0) < row["step"]]
                self.revision += 1
            self._rows.append([_short(row.get(name)) for name in FIGURES])
            self.newest = row
            if len(self._rows) > MOST_KEPT:
                half = len(self._rows) // 2
                self._rows = self._rows[:half:2] + self._rows[half:]

    def since(self, step: int, revision: int) -> dict[str, Any]:
        """The steps after this one as columns; all, thinned out, for a browser with another revision."""
        fresh = revision == self.revision
        rows = self._rows
        if fresh and step:
            first = len(rows)
            while first and (rows[first - 1][0] or 0) > step:
                first -= 1
            rows = rows[first:]
        if len(rows) > MOST_POINTS:
            stride = -(-len(rows) // MOST_POINTS)
            rows = rows[:-NEWEST:stride] + rows[-NEWEST:]
        columns = {name: [row[index] for row in rows] for index, name in enumerate(FIGURES)}
        return {"revision": self.revision, "reset": not fresh or not step, "columns": columns}


def _short(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or value > 1e6 else float(f"{value:.{DIGITS}g}")
