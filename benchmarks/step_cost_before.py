"""What a learner step costs beside the same step of another checkout, such as the commit before a change.

    git worktree add ../before REVISION
    python -m benchmarks.step_cost_before ../before --rounds 40

A process of each checkout takes the steps of benchmarks/step_cost.py, both in this environment. They take turns, one step
each, so that both see the same machine; the order changes from round to round. Prints the median ratio of this checkout to
the other with its 95 % interval, and writes it as JSON.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.ratios import ratio
from services.run.json_text import json_text

ROOT = Path(__file__).resolve().parents[1]
STEPS = (
    "plain GRPO, against itself",
    "GRPO, both",
    "OWPO, both; reference not scored",
    "OWPO, both; reference scored",
    "GRPO, exact gradient norms (oracle)",
)
WORKER = """
import sys, tempfile
from pathlib import Path
from benchmarks import step_cost as cost
from services.config.model import ModelConfig
batch = cost.made_up_batch()
with tempfile.TemporaryDirectory() as folder:
    length = cost.PROMPT_TOKENS + cost.LONGEST
    model = ModelConfig(path=str(cost.build_model(Path(folder))), max_length=length, dtype="float32")
    engine = cost.DeepSpeedEngine(model, cost.SIDES[-1].settings(), "cpu")
sides = {side.name: side for side in cost.SIDES}
print("ready", flush=True)
for line in sys.stdin:
    seconds = cost.timed(cost.step(engine, batch, sides[line.strip()]))
    print("took", seconds.wall, seconds.processor, flush=True)
engine.close()
"""


class Worker:
    """A process that takes steps with the code of one checkout."""

    def __init__(self, checkout: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer("ready")

    def step(self, name: str) -> tuple[float, float]:
        """Wall and processor seconds of one step."""
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        _, wall, processor = self._answer("took")
        return float(wall), float(processor)

    def close(self) -> None:
        self._process.communicate(timeout=60)  # it ends with its standard input

    def _answer(self, word: str) -> list[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return line.split()
        raise SystemExit("a worker ended; its error is above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(".bench/step_cost"))
    given = parser.parse_args()
    this, other = Worker(ROOT), Worker(given.other.resolve())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STEPS}
    for number in range(given.rounds + 1):
        for name in STEPS:
            first, second = (this, other) if number % 2 else (other, this)
            taken = {worker: worker.step(name) for worker in (first, second)}
            if number > 0:  # the first round warms up
                found[name].append((taken[this][0] / taken[other][0], taken[this][1] / taken[other][1]))
    this.close()
    other.close()
    print("| step | wall time, ratio to the other checkout | processor time |\n|---|---|---|")
    ratios = {name: [ratio(list(column)) for column in zip(*pairs, strict=True)] for name, pairs in found.items()}
    for name, (wall, processor) in ratios.items():
        print(f"| {name} | {wall} | {processor} |")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "step_cost_before.json"
    report = {
        "ratios": {name: {"wall": asdict(wall), "processor": asdict(cpu)} for name, (wall, cpu) in ratios.items()},
        "rounds": given.rounds,
        "machine": machine(("torch", "deepspeed", "transformers")),
    }
    path.write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
