"""What asynchrony buys: the wall time of the addition example to a held-out accuracy, sampling and learning at the same time,
beside taking turns.

    python -m benchmarks.asynchrony --seeds 3 --out .bench/asynchrony.json      # a minute and more for each run, on two cores

At the same time: `max_lag` 2, the cores shared by the replica and the learner, as the example's run file has it. In turns:
`max_lag` 0, where the replica waits for the new weights and the learner for the groups, and each computes on all cores while it
is its turn. The runs of one seed take turns on the machine, so leave it alone meanwhile. Seconds are those of training, from the
first step's start on: without the start of the services, with the evaluations, which both sides have equally often. Between two
evaluations the accuracy is taken to change evenly. Intervals are 95 % by Student's t over seeds.
"""

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.examples import PACKAGES, ROOT, name, one_run
from benchmarks.machine import machine
from benchmarks.samplers import interval
from services.run.history import History, read_history

EVALUATION = ("evaluation.every_steps=10", "evaluation.samples_per_prompt=1")


def ways(cores: int) -> dict[str, list[str]]:
    """Name -> the changes of the run file that it takes, as `--set` takes them."""
    in_turns = ["learner.max_lag=0", f"learner.cpu_threads={cores}", f"rollout.cpu_threads={cores}"]
    return {"at the same time": ["learner.max_lag=2"], "in turns": in_turns}


def seconds_to(history: History, accuracy: float) -> float:
    """Seconds of training until the held-out accuracy is reached; SystemExit if it never is."""
    points = [(step, value, history.seconds_at(step)) for step, value in history.accuracy()]
    for (_, low, begun_s), (_, high, ended_s) in itertools.pairwise(points):
        if low < accuracy <= high and begun_s is not None and ended_s is not None:
            return begun_s + (ended_s - begun_s) * (accuracy - low) / (high - low)
    raise SystemExit(f"{history.name} never came to {accuracy}: {[round(value, 3) for _, value, _ in points]}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.asynchrony", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--accuracy", type=float, default=0.9, help="held-out")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "asynchrony", help="where the run folders are")
    parser.add_argument("--out", type=Path, help="report in JSON")
    options = parser.parse_args()
    runs, found = options.runs.resolve(), dict[str, list[dict[str, Any]]]()
    for seed, (way, changes) in itertools.product(range(options.seeds), ways(os.cpu_count() or 1).items()):
        called = way.replace(" ", "-")
        one_run("addition", called, seed, runs, [*EVALUATION, *changes])
        history = read_history(runs / name(called, seed))
        facts = {
            "seconds": seconds_to(history, options.accuracy),
            "training_s": history.seconds_at(len(history.steps)),
            "accuracy": history.accuracy(),
        }
        found.setdefault(way, []).append(facts)
    print(f"| seconds to {options.accuracy:g} | " + " | ".join(found) + " | ratio |\n|---|" + "---|" * (len(found) + 1))
    columns = {way: [facts["seconds"] for facts in rows] for way, rows in found.items()}
    ratios = [fast / slow for fast, slow in zip(*columns.values(), strict=True)]
    for seed, ratio in enumerate(ratios):
        print(
            f"| seed {seed} | " + " | ".join(f"{column[seed]:.1f}" for column in columns.values()) + f" | {ratio:.2f} |"
        )
    print("| mean | " + " | ".join(interval(column, 1) for column in columns.values()) + f" | {interval(ratios, 2)} |")
    if options.out is not None:
        report = {"machine": machine(PACKAGES), "accuracy": options.accuracy, "ratios": ratios, "runs": found}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
