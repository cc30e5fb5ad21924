"""One run of the laboratory in a process of its own, because DeepSpeed starts once: `python -m benchmarks.lag.one_run JSON`."""

import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.lag.experiment import Outcome, Setting, collapsed_at, experiment
from benchmarks.lag.methods import settings
from benchmarks.lag.results import Row, Run, append, log_path
from benchmarks.lag.sampler import Sampler
from benchmarks.lag.tasks import TASKS
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.step.report import StepReport
from services.config.model import ModelConfig
from services.run.json_lines import JsonLines

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is told."""

    task: str
    method: str
    lag: int
    seed: int
    steps: int
    groups: int
    group_size: int
    evaluate_every: int
    learning_rate: float | None
    """None: the task's."""
    schedule: str
    zero_variance: str
    out: str

    @property
    def run(self) -> Run:
        name = self.task if self.learning_rate is None else f"{self.task}@{self.learning_rate:g}"
        if self.schedule != "constant":
            name += f"-{self.schedule}"
        if self.zero_variance != "train":
            name += f"-{self.zero_variance}"
        return Run(name, self.method, self.lag, self.seed)


def carry_out(order: Order) -> Row:
    """Steps into runs/lag/, the row to `order.out`."""
    task, run = TASKS[order.task](), order.run
    config = settings(
        order.method,
        lag=order.lag,
        steps=order.steps,
        groups_per_step=order.groups,
        learning_rate=order.learning_rate or task.learning_rate,
        prompt_tokens=task.prompt_tokens,
        response_tokens=task.response_tokens,
        teachers=task.teachers,
        schedule=order.schedule,
        zero_variance=order.zero_variance,
    )
    length = task.prompt_tokens + task.response_tokens
    torch.manual_seed(order.seed)
    engine = DeepSpeedEngine(ModelConfig(path=str(task.model), max_length=length, dtype="float32"), config, "cpu")
    path = log_path(run, order.steps)
    path.unlink(missing_ok=True)
    log = JsonLines(path)

    def note(step: int, report: StepReport) -> None:
        log.write(step=step, **dataclasses.asdict(report))

    setting = Setting(order.lag, order.seed, order.group_size, order.evaluate_every)
    outcome = experiment(engine, Sampler(task.model, task.end), task, config, setting, note)
    for step, value in outcome.accuracy:
        log.write(step=step, accuracy=value)
    log.close()
    row = row_of(run, outcome, order.steps)
    append(Path(order.out), row)
    engine.close()
    return row


def row_of(run: Run, outcome: Outcome, steps: int) -> Row:
    looks = [value for _, value in outcome.accuracy[1:]]
    ess = [r.ess_ratio for r in outcome.reports if math.isfinite(r.ess_ratio)]
    return Row(
        task=run.task,
        method=run.method,
        lag=run.lag,
        seed=run.seed,
        accuracy_start=outcome.accuracy[0][1],
        accuracy_end=outcome.accuracy[-1][1],
        collapsed_at_step=collapsed_at(outcome.accuracy),
        ess_ratio_mean=round(math.fsum(ess) / len(ess), 6) if ess else 0.0,
        steps=steps,
        samples=outcome.samples,
        wall_seconds=round(outcome.wall_seconds, 1),
        commit=commit(),
        accuracy_mean=round(math.fsum(looks) / len(looks), 4),
    )


def commit() -> str:
    """With a + where files were changed since, but for the rows themselves."""

    def git(*arguments: str) -> str:
        said = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return said.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/lag/results.jsonl")
    return (git("rev-parse", "--short=7", "HEAD") or "unknown") + ("+" if changed else "")


if __name__ == "__main__":
    row = carry_out(Order(**json.loads(sys.argv[1])))
    print(
        f"{row.task} {row.method} lag {row.lag} seed {row.seed}: {row.accuracy_start:.3f} -> {row.accuracy_end:.3f}, "
        f"ESS {row.ess_ratio_mean:.3f}, collapsed at {row.collapsed_at_step}, {row.wall_seconds:.0f} s",
        flush=True,
    )
