"""What a run has come to, from the files in its folder: while it runs, after its end, and of one that was cut off."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.config import RunConfig
from services.config.load import load, masked_settings
from services.errors import InputError
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.json_text import read_json
from services.run.summary import newest, summarize

NOT_COMPARED = ("name", "runs_folder")
SMOOTH_STEPS = 10
"""Steps over which the pass rate is averaged where it stands in for held-out accuracy."""


@dataclass(frozen=True)
class History:
    """The rows and the settings of one run."""

    name: str
    folder: RunFolder
    settings: Mapping[str, Any]
    """By dotted name, without passwords."""
    steps: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    """See services/run/summary.py; of a run that has not ended, what can be known of it."""
    is_finished: bool

    def accuracy(self) -> list[tuple[int, float]]:
        """Held-out avg@k by policy version, without evaluations that came to nothing."""
        return [(row["policy_version"], row["avg_at_k"]) for row in self.evaluations if row["avg_at_k"] is not None]

    def pass_rate(self) -> list[tuple[int, float]]:
        """The pass rate of the groups trained on by step, averaged over the last SMOOTH_STEPS steps."""
        rows = [(row["step"], row["pass_rate"]) for row in self.steps if row["pass_rate"] is not None]
        found = []
        for at, (step, _) in enumerate(rows):
            last = [rate for _, rate in rows[max(0, at + 1 - SMOOTH_STEPS) : at + 1]]
            found.append((step, sum(last) / len(last)))
        return found

    def seconds_at(self, step: int) -> float | None:
        """Seconds of training until this step was done; 0 before the first. None if it is not known."""
        if step == 0:
            return 0.0
        return next((row.get("wall_seconds") for row in self.steps if row["step"] >= step), None)

    def reached(self, curve: Sequence[tuple[int, float]], threshold: float) -> tuple[int, float | None] | None:
        """The first step at which the curve is at the threshold, and the seconds until then; None if it never is."""
        step = next((step for step, value in curve if value >= threshold), None)
        return None if step is None else (step, self.seconds_at(step))


def open_run(path: Path) -> tuple[RunConfig, RunFolder]:
    """The run in this folder. Raises InputError if there is none."""
    folder = _folder(path)
    return load(folder.settings), folder


def _folder(path: Path) -> RunFolder:
    folder = RunFolder(path)
    if not folder.settings.exists():
        raise InputError(f"{path} is not a run folder: it has no {folder.settings.name}. Give one like runs/NAME")
    return folder


def read_history(path: Path) -> History:
    """Read a run's folder. Raises InputError if there is no run in it, or its settings cannot be read."""
    folder = _folder(path)
    steps = newest(read_json_lines(folder.steps), "step")
    is_finished = folder.summary.exists() and folder.export.is_dir()
    if folder.summary.exists():
        summary = read_json(folder.summary.read_text(encoding="utf-8"))
    else:
        last = steps[-1] if steps else {}
        groups = last.get("groups", {"issued": 0, "trained": 0, "dropped": {}, "dead": 0, "outstanding": 0})
        summary = summarize(folder, groups, dict(last), [])
    return History(
        name=path.resolve().name,
        folder=folder,
        settings=_settings(folder.settings),
        steps=steps,
        evaluations=newest(read_json_lines(folder.evaluations), "policy_version"),
        summary=summary,
        is_finished=is_finished,
    )


def _settings(path: Path) -> dict[str, Any]:
    """By dotted name. Settings that this version does not know are shown as they are, but for addresses, which may hold
    passwords. Raises InputError for a file that is not TOML."""
    try:
        return flat(masked_settings(load(path)))
    except InputError:
        pass  # written by another version: shown as it is, below
    try:
        found = flat(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise InputError(f"{path} cannot be read: {fault}") from None
    return {key: "***" if "://" in str(value) else value for key, value in found.items()}


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted name. Lists stay whole."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def differing(histories: Sequence[History]) -> dict[str, list[Any]]:
    """Setting -> its value in each run, of those that are not the same in all; None where a run has none."""
    names = sorted({name for history in histories for name in history.settings})
    found = {name: [history.settings.get(name) for history in histories] for name in names if name not in NOT_COMPARED}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values[1:])}
