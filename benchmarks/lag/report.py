"""Table and pictures of the laboratory's rows.

    python -m benchmarks.lag.report [--rows FILE] [--pictures FOLDER]

Prints two Markdown tables for each task and number of steps. One has methods down, lags across, held-out accuracy at the
end, its 95 % interval over seeds (Student's t), and how many runs collapsed; the other accuracy over the run, ESS, steps of
collapse and seconds. Pictures: accuracy by lag, and for each lag reward, ESS and gradient norm by step, as far as this
machine has them.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lag.results import Row, log_path, read
from services.run.json_lines import read_json_lines

ROOT = Path(__file__).resolve().parents[2]
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
"""Two-sided, by degrees of freedom."""
CURVES = {"mean_reward": "reward of the groups trained on", "ess_ratio": "ESS ratio", "grad_norm": "gradient norm"}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half the 95 % interval); nan for one value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, T_95.get(len(values) - 1, 1.96) * deviation / math.sqrt(len(values))


def cells(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """By method and lag."""
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        found[row.method, row.lag].append(row)
    return dict(found)


def table(rows: Sequence[Row]) -> str:
    """Accuracies at the end as Markdown, for rows of one task and number of steps."""
    found = cells(rows)
    lags, methods = sorted({lag for _, lag in found}), list(dict.fromkeys(method for method, _ in found))
    lines = ["| method | " + " | ".join(f"lag {lag}" for lag in lags) + " |", "|---" * (len(lags) + 1) + "|"]
    for method in methods:
        lines.append(f"| `{method}` | " + " | ".join(_cell(found.get((method, lag), [])) for lag in lags) + " |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    collapsed = sum(row.collapsed_at_step is not None for row in rows)
    return _middle([row.accuracy_end for row in rows]) + (
        f", {collapsed} of {len(rows)} collapsed" if collapsed else ""
    )


def _middle(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.3f}" + (f" ± {half:.3f}" if math.isfinite(half) else "")


def details(rows: Sequence[Row]) -> str:
    """A line for each method and lag; rows of one task and number of steps. Over the run: held-out accuracy, all its looks."""
    lines = ["| method | lag | accuracy of each seed | over the run | collapsed at step | ESS ratio | wall, s |"]
    lines.append("|---" * 7 + "|")
    for (method, lag), found in cells(rows).items():
        runs = sorted(found, key=lambda row: row.seed)
        columns = (
            ", ".join(f"{row.accuracy_end:.3f}" for row in runs),
            _middle([row.accuracy_mean for row in runs]),
            ", ".join("-" if row.collapsed_at_step is None else str(row.collapsed_at_step) for row in runs),
            f"{interval([row.ess_ratio_mean for row in runs])[0]:.2f}",
            f"{interval([row.wall_seconds for row in runs])[0]:.0f}",
        )
        lines.append(f"| `{method}` | {lag} | " + " | ".join(columns) + " |")
    return "\n".join(lines)


def pictures(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw rows of one task and number of steps. Returns the paths written."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    found, task = cells(rows), f"{rows[0].task}, {rows[0].steps} steps"
    name_of = f"{rows[0].task}-{rows[0].steps}steps"
    methods, lags = list(dict.fromkeys(m for m, _ in found)), sorted({lag for _, lag in found})
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for method in methods:
        at = [lag for lag in lags if (method, lag) in found]
        middle = [interval([r.accuracy_end for r in found[method, lag]]) for lag in at]
        halves = [0.0 if math.isnan(half) else half for _, half in middle]
        axes.errorbar([lag + 1 for lag in at], [m for m, _ in middle], halves, label=method, marker="o", capsize=3)
    axes.set(xscale="log", xlabel="lag, steps", ylabel="held-out accuracy at the end", ylim=(0, 1), title=task)
    axes.set_xticks([lag + 1 for lag in lags], [str(lag) for lag in lags])
    axes.legend(fontsize="small")
    written = [folder / f"{name_of}-by-lag.png"]
    figure.savefig(written[0], dpi=120)
    for lag in lags:
        figure, panels = pyplot.subplots(1, len(CURVES), figsize=(15, 4.5), layout="constrained")
        for method in methods:
            logs = [read_json_lines(log_path(r.run, r.steps)) for r in found.get((method, lag), [])]
            for name, panel in zip(CURVES, panels, strict=True):
                by_step: dict[int, list[float]] = defaultdict(list)
                for one in (step for log in logs for step in log):
                    value = one.get(name)
                    if value is not None and math.isfinite(value):
                        by_step[one["step"]].append(value)
                steps = sorted(by_step)
                panel.plot(steps, [math.fsum(by_step[s]) / len(by_step[s]) for s in steps], label=method, lw=1)
        for (name, title), panel in zip(CURVES.items(), panels, strict=True):
            panel.set(title=title, xlabel="step")
            if name == "grad_norm":
                panel.set_yscale("log")
        figure.suptitle(f"{task}, lag {lag}")
        panels[0].legend(fontsize="small")
        written.append(folder / f"{name_of}-lag{lag}.png")
        figure.savefig(written[-1], dpi=100)
        pyplot.close("all")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lag.report")
    parser.add_argument("--rows", type=Path, default=ROOT / "benchmarks" / "lag" / "results.jsonl")
    parser.add_argument("--pictures", type=Path, default=ROOT / "runs" / "lag")
    options = parser.parse_args()
    rows = read(options.rows)
    for task, steps in dict.fromkeys((row.task, row.steps) for row in rows):
        alike = [row for row in rows if (row.task, row.steps) == (task, steps)]
        seeds = len({r.seed for r in alike})
        print(f"\n{task}, {steps} steps: {len(alike)} runs, {seeds} seeds\n\n{table(alike)}\n\n{details(alike)}\n")
        for path in pictures(alike, options.pictures):
            print(path)


if __name__ == "__main__":
    main()
