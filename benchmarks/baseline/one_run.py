"""One model of the comparison: `python -m benchmarks.baseline.one_run ORDER ROWS`, a process each as DeepSpeed starts once.

The learner takes its steps on fresh samples; then groups are sampled again by the weights of this many steps ago, and their
gradients are those of the last weights.
"""

import dataclasses
import json
import math
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline.estimators import (
    YARDSTICK,
    advantages_of,
    agreement,
    coefficients,
    compare,
    halves_apart,
    mean_baselines,
    resamplings,
    right_to_wrong,
)
from benchmarks.baseline.gradients import Gradients, OfModel, collect, products
from benchmarks.lag.chain import WIDTH, chain
from benchmarks.lag.experiment import Setting, experiment
from benchmarks.lag.groups import scored_groups
from benchmarks.lag.methods import settings
from benchmarks.lag.sampler import Sampler
from benchmarks.lag.task import Task, prompts_of
from benchmarks.lag.tasks import MODELS, TASKS
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.objective.ess import ess_ratio
from learner.step.report import StepReport
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.wire.score import ScoredGroup

Weights = list[tuple[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is told."""

    task: str
    """addition, chain, or that at another width or with free tokens: chain-160, chain-free, chain-160-free."""
    method: str
    learning_rate: float
    steps: int
    groups_per_step: int
    group_size: int
    groups: int
    """Sampled at each lag."""
    lags: tuple[int, ...]
    seed: int


def carry_out(order: Order) -> list[dict[str, Any]]:
    """A row a lag."""
    task = task_of(order.task)
    config = learner_settings(order, task)
    length = task.prompt_tokens + task.response_tokens
    model = ModelConfig(path=str(task.model), max_length=length, dtype="float32")
    torch.manual_seed(order.seed)
    engine = DeepSpeedEngine(model, config, "cpu")
    sampler = Sampler(task.model, task.end)
    kept, accuracy = train(engine, sampler, task, config, order)
    gradient = OfModel(model, kept[-1], config.head_chunk_tokens)
    parameters = sum(tensor.numel() for _, tensor in kept[-1])
    rows = []
    for lag in order.lags:
        start = time.perf_counter()
        sampler.load(kept[-1 - lag])
        groups = sample(sampler, task, order, lag)
        found = collect(engine, groups, order.steps, config, gradient)
        rows.append(
            {
                **dataclasses.asdict(order),
                "lag": lag,
                "parameters": parameters,
                "accuracy": accuracy,
                **row_of(found, config.importance.cap, order.seed),
                "wall_seconds": round(time.perf_counter() - start, 1),
            }
        )
        del rows[-1]["lags"]
        print(f"  lag {lag}: {rows[-1]['wall_seconds']} s", flush=True)
    engine.close()
    return rows


def task_of(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]()
    width = name.removeprefix("chain").removesuffix("-free").removeprefix("-")
    return chain(MODELS, int(width) if width else WIDTH, free=name.endswith("-free"))


def learner_settings(order: Order, task: Task) -> LearnerConfig:
    """The laboratory's, trained on groups of mixed rewards alone, as baselines are measured on."""
    return settings(
        order.method,
        lag=max(order.lags),
        steps=order.steps,
        groups_per_step=order.groups_per_step,
        learning_rate=order.learning_rate,
        prompt_tokens=task.prompt_tokens,
        response_tokens=task.response_tokens,
        zero_variance="drop",
    )


def train(
    engine: DeepSpeedEngine, sampler: Sampler, task: Task, config: LearnerConfig, order: Order
) -> tuple[deque[Weights], float]:
    """Weights after each of the last steps, the youngest last, and what the last ones have right of the held-out problems."""
    kept: deque[Weights] = deque([engine.snapshot(torch.float32)], maxlen=max(order.lags) + 1)

    def keep(step: int, report: StepReport) -> None:
        kept.append(engine.snapshot(torch.float32))

    setting = Setting(0, order.seed, order.group_size, evaluate_every=order.steps, final_samples=1)
    outcome = experiment(engine, sampler, task, config, setting, keep)
    return kept, outcome.accuracy[-1][1]


def sample(sampler: Sampler, task: Task, order: Order, lag: int) -> list[ScoredGroup]:
    random = torch.Generator().manual_seed(1000 + order.seed)  # the same problems at every lag
    chosen = [task.train[i] for i in torch.randperm(len(task.train), generator=random)[: order.groups].tolist()]
    sampled = sampler.sample(prompts_of(chosen).repeat_interleave(order.group_size, 0), task.response_tokens, random)
    return scored_groups(chosen, sampled, group_size=order.group_size, policy_version=order.steps - lag, first_number=0)


def row_of(found: Gradients, cap: float, seed: int) -> dict[str, Any]:
    """All that is said about the groups of one lag."""
    every = products(found.sums)
    advantages = advantages_of(found)
    counted = {name: coefficients(advantage, found) for name, advantage in advantages.items()}
    yardstick = counted[YARDSTICK] @ every @ counted[YARDSTICK].t()
    counts = resamplings(len(yardstick), torch.Generator().manual_seed(seed))
    log_weight = found.log_weight[found.mixed]
    return {
        "pass_rate": float(found.reward.mean()),
        "mixed_groups": float(found.mixed.double().mean()),
        "ess_ratio": ess_ratio(log_weight),
        "above_cap": float((log_weight > math.log(cap)).double().mean()),
        "mean_baseline": mean_baselines(advantages, found),
        "agreement": dataclasses.asdict(agreement(found)),
        "halves_apart": halves_apart(yardstick),
        "right_to_wrong_norm": right_to_wrong(found),
        "baselines": {
            name: dataclasses.asdict(
                compare(own @ every @ own.t(), yardstick, own @ every @ counted[YARDSTICK].t(), counts)
            )
            for name, own in counted.items()
            if name != YARDSTICK
        },
    }


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    made = carry_out(Order(**{**told, "lags": tuple(told["lags"])}))
    Path(sys.argv[2]).write_text(json.dumps(made), encoding="utf-8")
