"""`ratchet compare RUN RUN...`: in what the settings of runs differ, and what they came to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.command import figures, html_page
from services.command.shown import bars_for, duration, sparkline
from services.errors import InputError
from services.numbers import count, number
from services.run.history import History, differing, read_history

THRESHOLDS = (0.25, 0.5, 0.75, 0.9, 0.95)
CURVE_WIDTH = 24


def read(paths: Sequence[Path]) -> list[History]:
    """The runs in these folders. Raises InputError for fewer than two, and for one that is not a run."""
    if len(paths) < 2:
        raise InputError("give at least two run folders to compare, such as runs/a runs/b; `ratchet report` shows one")
    histories = [read_history(path) for path in paths]
    names = [history.name for history in histories]
    if len(set(names)) < len(names):  # folders of different places may have one name
        raise InputError(
            f"two of the runs have the same name ({', '.join(names)}); rename a folder, so that they can be told apart"
        )
    return histories


def came_to(history: History, thresholds: Sequence[float], held_out: bool) -> dict[str, Any]:
    """What a run came to. held_out: whether accuracy is that of evaluations; else the mean pass rate stands for it."""
    curve = history.accuracy() if held_out else history.pass_rate()
    values = [value for _, value in curve]
    groups, summary = history.summary["groups"], history.summary
    return {
        "steps": len(history.steps),
        "wall_seconds": summary["wall_seconds"],
        "final_accuracy": values[-1] if values else None,
        "best_accuracy": max(values, default=None),
        "reached": {f"{one:g}": history.reached(curve, one) for one in thresholds},
        "trained_tokens": summary["trained_tokens"],
        "groups": {
            "trained": groups["trained"],
            "dropped": dict(groups["dropped"]),
            "dead": groups["dead"],
        },
        "lag_steps_mean": summary["lag_steps"]["mean"],
        "ess_ratio_mean": summary["ess_ratio"]["mean"],
        "idle_ratio": dict(summary["idle_ratio"]),
    }


def compare(histories: Sequence[History], thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
    """The comparison as JSON has it."""
    held_out = all(history.accuracy() for history in histories)
    return {
        "accuracy_is": "held-out avg@k" if held_out else "mean pass rate of 10 steps",
        "runs": {history.name: came_to(history, thresholds, held_out) for history in histories},
        "settings": {
            name: dict(zip((history.name for history in histories), values, strict=True))
            for name, values in differing(histories).items()
        },
    }


def result_rows(found: dict[str, Any]) -> list[list[str]]:
    """The rows of the table of results: a name, and a cell for each run."""
    runs = list(found["runs"].values())

    def row(name: str, cell: Any) -> list[str]:
        return [name, *(cell(one) for one in runs)]

    def reached(one: dict[str, Any], threshold: str) -> str:
        at = one["reached"][threshold]
        return "-" if at is None else f"step {at[0]}" + (f", {duration(at[1])}" if at[1] is not None else "")

    thresholds = [one for one in runs[0]["reached"] if any(run["reached"][one] for run in runs)]
    return [
        row("steps", lambda one: count(one["steps"])),
        row("time", lambda one: duration(one["wall_seconds"]) if one["wall_seconds"] is not None else "-"),
        row("final accuracy", lambda one: number(one["final_accuracy"])),
        row("best accuracy", lambda one: number(one["best_accuracy"])),
        *(row(f"reached {one}", lambda run, one=one: reached(run, one)) for one in thresholds),
        row("tokens trained on", lambda one: count(one["trained_tokens"] or 0)),
        row("groups trained", lambda one: count(one["groups"]["trained"])),
        row("groups dropped", lambda one: count(sum(one["groups"]["dropped"].values()))),
        row("groups dead", lambda one: count(one["groups"]["dead"])),
        row("mean lag, steps", lambda one: number(one["lag_steps_mean"], 2)),
        row("mean ESS ratio", lambda one: number(one["ess_ratio_mean"])),
        row("learner idle", lambda one: number(one["idle_ratio"]["learner"], 2)),
    ]


def setting_rows(found: dict[str, Any]) -> list[list[str]]:
    """The rows of the table of settings."""
    return [
        [name, *("-" if value is None else str(value) for value in values.values())]
        for name, values in found["settings"].items()
    ]


def show(histories: Sequence[History], found: dict[str, Any], console: Console) -> None:
    """Print the comparison."""
    names = [history.name for history in histories]
    for caption, rows in (("settings that differ", setting_rows(found)), ("results", result_rows(found))):
        if not rows:
            console.print(f"{caption}: none", highlight=False)
            continue
        printed = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        printed.add_column(caption, overflow="fold")
        for name in names:
            printed.add_column(Text(name), overflow="fold")
        if caption == "results":
            printed.add_row("curve", *(Text(_curve(one, console)) for one in histories))
        for row in rows:
            printed.add_row(*map(Text, row))
        console.print(printed)
        console.print()
    console.print(f"accuracy: {found['accuracy_is']}", highlight=False, markup=False)


def _curve(history: History, console: Console) -> str:
    values = [value for _, value in history.pass_rate()]
    return sparkline(values, CURVE_WIDTH, bars_for(console)) or "-"


def html(histories: Sequence[History], found: dict[str, Any]) -> str:
    """The comparison as one page."""
    names = [history.name for history in histories]
    title = " and ".join(names) if len(names) == 2 else f"{', '.join(names[:-1])} and {names[-1]}"
    return html_page.page(
        f"Comparison of {title}",
        [
            html_page.picture(
                figures.svg(figures.curves(histories)), f"Accuracy, ESS ratio and lag by step of {title}"
            ),
            html_page.table("Results", ["", *names], result_rows(found)),
            html_page.table("Settings that differ", ["", *names], setting_rows(found)),
            f"<p>Accuracy is the {found['accuracy_is']}.</p>",
        ],
    )
