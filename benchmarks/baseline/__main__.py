"""What a baseline is worth: the logit proxy against exact gradient norms, and the gradient variance that each leaves.

    python -m benchmarks.baseline                                    # chain and chain-free, 12 models, each at four lags
    python -m benchmarks.baseline --tasks addition --learning-rate 2e-4
    python -m benchmarks.baseline.report                             # the tables of what there is

Models are trained with the learner's own step; then groups are sampled again by the weights of `lag` steps ago, and each
sequence's gradient is taken at the last ones. Rows go to benchmarks/baseline/results.json as each model ends; models that
have theirs are not trained again. Left out: norms in groups whose rewards are all equal, which no baseline gives a gradient.
Exit code 1: a model failed, and the others were measured all the same.
"""

import argparse
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.baseline.one_run import Order
from benchmarks.baseline.report import RESULTS, read, tables
from benchmarks.lag.methods import METHODS
from benchmarks.lag.one_run import ROOT
from benchmarks.machine import machine

PACKAGES = ("torch", "transformers", "deepspeed")


def main() -> int:
    options = arguments()
    orders = [
        Order(
            task,
            method,
            options.learning_rate,
            options.steps,
            options.groups_per_step,
            options.group_size,
            options.groups,
            tuple(options.lags),
            seed,
        )
        for seed, task, method in itertools.product(options.seeds, options.tasks, options.methods)
    ]
    failed = False
    for order in orders:
        report = read(options.out)
        if has_rows(report, order):
            continue
        print(f"{order.task}, {order.method}, learning rate {order.learning_rate:g}, seed {order.seed}", flush=True)
        rows = in_its_own_process(order)
        failed |= not rows
        write(options.out, report, rows)
    print(tables(read(options.out)["rows"]))
    return 1 if failed else 0


def has_rows(report: dict[str, Any], order: Order) -> bool:
    wanted = dataclasses.asdict(order)
    lags = wanted.pop("lags")
    have = {row["lag"] for row in report["rows"] if all(row[key] == value for key, value in wanted.items())}
    return have.issuperset(lags)


def in_its_own_process(order: Order) -> list[dict[str, Any]]:
    """Its rows; none when it failed, which it printed by itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.baseline.one_run", json.dumps(dataclasses.asdict(order)), str(path)],
            cwd=ROOT,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if ended.returncode == 0 else []
    return rows


def write(path: Path, report: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The file, written again: what it was made by and on, and its rows with these, one a line."""
    command = " ".join(["python -m benchmarks.baseline", *sys.argv[1:]])
    header = {
        "commands": [*dict.fromkeys([*report["commands"], command])],
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(PACKAGES),
    }
    lines = ",\n".join(json.dumps(rounded(row)) for row in [*report["rows"], *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(
        json.dumps(header, indent=1).removesuffix("\n}") + f',\n "rows": [\n{lines}\n]}}\n', encoding="utf-8"
    )
    beside.replace(path)


def rounded(value: Any) -> Any:
    """Floats to five significant digits, at any depth."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(x) for x in text.split(",")]

    def names(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if not re.fullmatch(r"addition|chain(-\d+)?(-free)?", name)]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no task {', '.join(unknown)}; there are addition, chain, chain-160, chain-free"
            )
        return text.split(",")

    def methods(text: str) -> list[str]:
        unknown = set(text.split(",")) - set(METHODS)
        if unknown:
            raise argparse.ArgumentTypeError(f"no method {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
        return text.split(",")

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baseline", description=(__doc__ or "").split("\n\n", maxsplit=1)[0]
    )
    parser.add_argument("--tasks", type=names, default=["chain", "chain-free"], help="also chain-WIDTH")
    parser.add_argument(
        "--methods", type=methods, default=["reinforce", "owpo_vc"], help="of benchmarks/lag/methods.py"
    )
    parser.add_argument("--lags", type=numbers, default=[0, 4, 16, 64])
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=64, help="that a model is trained for, at least the longest lag")
    parser.add_argument("--groups-per-step", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--groups", type=int, default=256, help="sampled at each lag to measure on")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if max(given.lags) > given.steps:
        parser.error(f"no weights of {max(given.lags)} steps ago after {given.steps}; raise --steps")
    return given


if __name__ == "__main__":
    sys.exit(main())
