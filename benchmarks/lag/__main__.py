"""The lag laboratory: methods x lags x seeds on data of an exact age, with the learner's own step.

    python -m benchmarks.lag --jobs 2                         # the whole table of the chain task, on two cores
    python -m benchmarks.lag --task addition --jobs 2         # shorter sequences
    python -m benchmarks.lag --methods grpo,owpo_vc --lags 0,64 --seeds 0
    python -m benchmarks.lag.report                           # table and pictures of what there is

A row a run goes to benchmarks/lag/results.jsonl when the run ends; runs that have one are not run again, so a laboratory
that was stopped goes on by the same command. What each step did is in runs/lag/. No vLLM, no Redis: one thread a run.
Exit code 1: a run failed, and the others were run all the same.
"""

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.lag.methods import DEFAULT, METHODS
from benchmarks.lag.one_run import ROOT, Order
from benchmarks.lag.results import missing, read
from benchmarks.lag.tasks import TASKS


def main() -> int:
    options = arguments()
    TASKS[options.task]()  # its models are there before runs that would all build them
    orders = [
        Order(
            options.task,
            method,
            lag,
            seed,
            options.steps,
            options.groups,
            options.group_size,
            options.evaluate_every,
            options.learning_rate,
            options.schedule,
            options.zero_variance,
            os.path.abspath(options.out),
        )
        for seed, lag, method in itertools.product(options.seeds, options.lags, options.methods)
    ]
    due = set(missing([order.run for order in orders], read(Path(options.out)), options.steps))
    print(f"{len(due)} runs of {options.steps} steps to do, {len(orders) - len(due)} done", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(in_its_own_process, (order for order in orders if order.run in due)))
    return 1 if any(codes) else 0


def in_its_own_process(order: Order) -> int:
    """Its exit status; a failure is printed by itself."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.lag.one_run", json.dumps(dataclasses.asdict(order))],
        cwd=ROOT,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    ).returncode


def arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(x) for x in text.split(",")]

    def methods(text: str) -> list[str]:
        unknown = set(text.split(",")) - set(METHODS)
        if unknown:
            raise argparse.ArgumentTypeError(f"no method {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m benchmarks.lag", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--task", choices=sorted(TASKS), default="chain")
    parser.add_argument("--methods", type=methods, default=list(DEFAULT), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--lags", type=numbers, default=[0, 4, 16, 64, 128])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--groups", type=int, default=16, help="prompts a step")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, help="another than the task's; becomes part of its name")
    parser.add_argument(
        "--schedule",
        choices=("constant", "linear"),
        default="constant",
        help="linear: to a tenth; becomes part of the name",
    )
    parser.add_argument(
        "--zero-variance",
        choices=("train", "drop"),
        default="train",
        help="drop: groups of equal rewards do not count in a step's means; becomes part of the name",
    )
    parser.add_argument("--evaluate-every", type=int, default=20)
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "lag" / "results.jsonl"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
