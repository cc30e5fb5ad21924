"""The end of a run: a table of before and after, and a picture of the learning curve."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from services.command.shown import number
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.summary import newest


def show(folder: RunFolder, summary: dict[str, Any], console: Console) -> None:
    """Print the summary as a table, and where the run's results are."""
    table = Table(
        title=f"{folder.path.name}: {summary['steps']} steps in {summary['wall_seconds']:.0f} s", title_justify="left"
    )
    table.add_column("")
    table.add_column("", justify="right")
    groups, lag, ess = summary["groups"], summary["lag_steps"], summary["ess_ratio"]
    rows = [
        ("held-out accuracy before", number(summary["accuracy_before"])),
        ("held-out accuracy after", number(summary["accuracy_after"])),
        ("tokens sampled / trained on", f"{summary['sampled_tokens']:,} / {summary['trained_tokens']:,}"),
        (
            "groups trained / dropped / dead",
            f"{groups['trained']} / {sum(groups['dropped'].values())} / {groups['dead']}",
        ),
        ("lag, steps: mean / p95 / max", f"{number(lag['mean'])} / {lag['p95']} / {lag['max']}"),
        ("ESS ratio: mean / min", f"{number(ess['mean'])} / {number(ess['min'])}"),
        (
            "weight broadcasts",
            f"{summary['weight_syncs']}, half within {number(summary['weight_sync_seconds']['p50'])} s",
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
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    for name, path in (
        ("summary", folder.summary),
        ("learning curve", folder.picture),
        ("trained model", folder.export),
    ):
        if path.exists():
            console.print(f"{name:15s} {path}", highlight=False, soft_wrap=True)


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
