"""A learner step with attention by spans, beside the same step with the dense mask, and beside TRL's.

    python -m benchmarks.attention [--rounds 3] [--out .bench/attention]

The learner's own step (GRPO, AdamW, one rank, one thread, float32, no GPU) on a random Qwen2 of 4 layers and hidden size 256,
and TRL's GRPO loss, backward and AdamW on the same sequences and weights, in four micro-batches that are padded as TRL pads them.
Every way is taken once a round, in turns, after a round that is not counted; ratios are medians over rounds, in processor
time, which others on the machine disturb less. The learning rate is 0, so that every step is of the same work. Beside the
seconds stands what each way says: the mean and the largest difference of its log-probs from those under the dense mask, and
of the norm of the gradient, where it is the learner's. Not measured: several ranks, bfloat16, a GPU.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention.cases import Size, cases, write_model
from benchmarks.attention.sides import Learner, Trl
from benchmarks.machine import machine


@dataclass
class Found:
    """What was measured of one way."""

    wall_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    logp: Tensor = field(default_factory=lambda: torch.zeros(0))
    grad_norm: float = math.nan


@dataclass(frozen=True)
class Target:
    case: str
    slow: str
    fast: str
    times: float
    """How many times the seconds of the fast way the slow one takes."""
    at_most: bool = False

    def is_met(self, times: float) -> bool:
        return times <= self.times if self.at_most else times >= self.times


TARGETS = (
    Target("lengths 16 to 1,024", "dense mask", "by span, prompts shared", 2.0),
    Target("all of 1,024", "dense mask", "by span", 2.0),
    Target("lengths 16 to 1,024", "TRL", "by span, prompts shared", 6.0),
    Target("rows of 8,192 and of 1,024", "rows of 8,192", "rows of 1,024", 1.15, at_most=True),
)


def measure(folder: Path, size: Size, rounds: int) -> dict[str, dict[str, Found]]:
    """Case -> way -> what was measured."""
    learner = Learner(folder, size)  # before TRL is imported, which imports DeepSpeed in its own way
    trl = Trl(folder)
    found: dict[str, dict[str, Found]] = {}
    for case in cases(size):
        ways = found[case.name] = {way.name: Found() for way in case.ways}
        for number in range(rounds + 1):
            for way in case.ways:
                side: Trl | Learner = learner if way.row_tokens else trl
                wall, processor = time.perf_counter(), time.process_time()
                norm = side.step(case.batch, way)
                wall, processor = time.perf_counter() - wall, time.process_time() - processor
                if number == 0:
                    ways[way.name].logp = side.logp(case.batch, way)
                    ways[way.name].grad_norm = norm
                else:
                    ways[way.name].wall_s.append(wall)
                    ways[way.name].processor_s.append(processor)
            print(f"{case.name}: round {number} of {rounds}", flush=True)
    learner.engine.close()
    return found


def times(slow: Found, fast: Found) -> float:
    """How many times the processor time of the fast way the slow one takes: the median of the rounds."""
    return statistics.median(a / b for a, b in zip(slow.processor_s, fast.processor_s, strict=True))


def table(found: dict[str, dict[str, Found]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for case, ways in found.items():
        first = next(iter(ways.values()))
        for name, way in ways.items():
            gap = (way.logp - first.logp).abs()
            rows.append(
                {
                    "case": case,
                    "way": name,
                    "processor_s": statistics.median(way.processor_s),
                    "wall_s": statistics.median(way.wall_s),
                    "faster_than_the_first": times(first, way),
                    "logp_gap_mean": float(gap.mean()),
                    "logp_gap_max": float(gap.max()),
                    "grad_norm_gap": abs(way.grad_norm / first.grad_norm - 1),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".bench/attention"))
    given = parser.parse_args()
    run(Size(), given.rounds, given.out)


def run(size: Size, rounds: int, out: Path) -> None:
    """Measure, print the table, and write it as JSON."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(write_model(Path(folder), size), size, rounds)
    rows = table(found)
    print(
        "\n| sequences | way | processor s | wall s | the first, in times this | log-prob gap, mean; max | gradient's norm |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['case']} | {row['way']} | {row['processor_s']:.2f} | {row['wall_s']:.2f} "
            f"| {row['faster_than_the_first']:.2f} | {row['logp_gap_mean']:.1e}; {row['logp_gap_max']:.1e} "
            f"| {row['grad_norm_gap']:.1e} |"
        )
    said = []
    for target in TARGETS:
        ways = found[target.case]
        ratio = times(ways[target.slow], ways[target.fast])
        said.append({**asdict(target), "found": ratio, "met": target.is_met(ratio)})
        word = "met   " if target.is_met(ratio) else "MISSED"
        bound = f"{'at most' if target.at_most else 'at least'} {target.times}"
        print(f"{word} {target.case}: {target.slow} takes {ratio:.2f} times {target.fast}, {bound}")
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "rows": rows,
        "seconds": {
            case: {name: {"wall_s": way.wall_s, "processor_s": way.processor_s} for name, way in ways.items()}
            for case, ways in found.items()
        },
        "targets": said,
        "size": asdict(size),
        "machine": machine(("torch", "deepspeed", "transformers", "trl")),
    }
    (out / "attention.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {out / 'attention.json'}")


if __name__ == "__main__":
    main()
