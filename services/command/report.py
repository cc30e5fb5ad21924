"""The end of a run, and `ratchet report`: a table of before and after, pictures, and the same as a page or as JSON."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from services.command import figures, html_page
from services.command.shown import place
from services.numbers import count, number
from services.run.best_checkpoint import best_checkpoints
from services.run.folder import RunFolder
from services.run.history import History
from services.run.json_lines import read_json_lines
from services.run.summary import newest


def result_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What a run came to: names and values."""
    groups, lag, ess = summary["groups"], summary["lag_steps"], summary["ess_ratio"]
    return [
        ("held-out accuracy before", number(summary["accuracy_before"])),
        ("held-out accuracy after", number(summary["accuracy_after"])),
        (
            "tokens sampled / trained on",
            f"{count(summary['sampled_tokens'] or 0)} / {count(summary['trained_tokens'] or 0)}",
        ),
        (
            "groups trained / dropped / dead",
            " / ".join(map(count, (groups["trained"], sum(groups["dropped"].values()), groups["dead"]))),
        ),
        ("lag, steps: mean / p95 / max", f"{number(lag['mean'])} / {count(lag['p95'])} / {count(lag['max'])}"),
        ("ESS ratio: mean / min", f"{number(ess['mean'])} / {number(ess['min'])}"),
        (
            "weight broadcasts",
            f"{count(summary['weight_syncs'])}, half within {number(summary['weight_sync_seconds']['p50'])} s",
        ),
        (
            "sampling stood still for each",
            f"{number(summary['sampling_gap_seconds']['p50'])} s (p95 {number(summary['sampling_gap_seconds']['p95'])})",
        ),
        ("largest weight gap", f"{summary['weight_gap_nats_max'] or 0:.1e} nats"),
        (
            "idle: learner / rollout",
            f"{number(summary['idle_ratio']['learner'])} / {number(summary['idle_ratio']['rollout'])}",
        ),
    ]


def show(folder: RunFolder, summary: dict[str, Any], console: Console) -> None:
    """Print the summary as a table, and where the run's results are."""
    seconds = summary["wall_seconds"]
    table = Table(
        title=f"{folder.path.name}: {count(summary['steps'])} steps"
        + (f" in {count(seconds)} s" if seconds is not None else ""),
        title_justify="left",
        title_style="bold",
        show_header=False,
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, value in result_rows(summary):
        table.add_row(name, value)
    console.print(table)
    best = best_checkpoints(folder, "avg_at_k")
    for name, path in (
        ("best checkpoint", best[0].checkpoint if best else folder.checkpoints / "none"),
        ("summary", folder.summary),
        ("learning curve", folder.picture),
        ("trained model", folder.export),
    ):
        if path.exists():
            console.print(f"{name:15s} {place(path)}", highlight=False, soft_wrap=True)


def draw(folder: RunFolder) -> Path:
    """Draw the learning curve as a PNG; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = newest(read_json_lines(folder.steps), "step")
    evaluations = newest(read_json_lines(folder.evaluations), "policy_version")
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, control = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    at = [step["step"] for step in steps]
    accuracy.plot(
        at,
        [step["pass_rate"] for step in steps],
        color="0.7",
        linewidth=0.8,
        label="pass rate of the groups trained on",
    )
    if evaluations:
        versions = [evaluation["policy_version"] for evaluation in evaluations]
        k = evaluations[-1]["k"]
        accuracy.plot(versions, [e["avg_at_k"] for e in evaluations], "o-", color="tab:blue", label=f"held-out avg@{k}")
        accuracy.plot(
            versions, [e["pass_at_k"] for e in evaluations], "o--", color="tab:green", label=f"held-out pass@{k}"
        )
    accuracy.set(ylim=(0, 1.02), ylabel="fraction correct", title=folder.path.name)
    accuracy.legend(loc="lower right")
    accuracy.grid(alpha=0.3)
    control.plot(at, [step["ess_ratio"] for step in steps], color="tab:purple", label="ESS ratio")
    control.set(ylim=(0, 1.05), xlabel="learner step", ylabel="ESS ratio")
    lag = control.twinx()
    lag.plot(at, [step["mean_lag_steps"] for step in steps], color="tab:orange", linewidth=0.8)
    lag.set_ylabel("mean lag, steps", color="tab:orange")
    control.grid(alpha=0.3)
    figure.savefig(folder.picture, dpi=110)
    return folder.picture


def as_json(history: History) -> dict[str, Any]:
    """The report for programs: the summary, the settings, and the evaluations."""
    return {
        "name": history.name,
        "finished": history.is_finished,
        "summary": dict(history.summary),
        "settings": dict(history.settings),
        "evaluations": [dict(row) for row in history.evaluations],
    }


def html(history: History) -> str:
    """The report as one page."""
    state = "" if history.is_finished else "<p>The run has not ended; this is what it has come to so far.</p>"
    evaluations = [
        [str(row["policy_version"]), f"avg@{row['k']}{of}", number(own["avg_at_k"], 4), number(own["pass_at_k"], 4)]
        for row in history.evaluations
        for of, own in (("", row), *((f" {name}", own) for name, own in row.get("sources", {}).items()))
    ]
    settings = [[name, str(value)] for name, value in history.settings.items()]
    return html_page.page(
        f"Report of {history.name}",
        [
            state,
            html_page.table("Results", ["", ""], [list(row) for row in result_rows(dict(history.summary))]),
            html_page.picture(
                figures.svg(figures.curves([history])), f"Accuracy, ESS ratio and lag by step of {history.name}"
            ),
            html_page.table("Evaluations", ["policy version", "of", "mean", "pass@k"], evaluations),
            html_page.table("Settings", ["setting", "value"], settings),
        ],
    )
