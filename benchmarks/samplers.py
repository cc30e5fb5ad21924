"""What the choice of prompts does to learning: each sampler beside uniform, on one task of two sources.

    python -m benchmarks.samplers                 # a minute or two on one core
    python -m benchmarks.samplers --seeds 10

The plan of prompts and the advantages are the learner's own; the policy is small enough to be exact. A problem is a vector x,
its answer a row of tokens, and the policy a linear softmax for each token, so that what is learned on one problem serves others.
The starting policy has pass rates from 0 to 1, and much lower ones in the second source. A step samples groups until enough
have rewards that differ, as the intake does, and takes one step of Adam. There is no engine, no lag and no wire.

Columns: held-out accuracy after a quarter of the steps and after all, and of the worse source, exact and not sampled; samples
spent, with those of the cosine; the share of groups of equal rewards; the cosine between the mean gradient of a few hundred
groups, as the sampler issues them, and the gradient of the mean training accuracy (below that of uniform: bias, since noise is
in both); the share of the prompts that the tenth of the problems issued most often had (0.1: all alike). Intervals are 95 % by
Student's t over seeds.
"""

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.objective.advantage import group_advantages
from learner.prompts.plan import PromptPlan
from services.config import RunConfig
from services.config.advantage import AdvantageConfig
from services.config.load import parse
from services.datasets.dataset import Problem

WIDTH, TOKENS, ALPHABET = 24, 3, 6
TRAINING, HELD_OUT = 200, 400
"""Problems of each source."""
NAMES = ("easy", "hard")
OWN: dict[str, dict[str, Any]] = {
    "uniform": {},
    "replay": {"sampler": {"type": "replay"}},
    "curriculum": {"sampler": {"type": "curriculum", "over_steps": 100}},
    "group_dro": {"mixture": {"type": "group_dro"}},
    "skip": {"skip": {"solved": True, "unsolved": True, "after": 1, "retry_steps": 20}},
    "adaptive_group": {"adaptive_group": {"least": 4, "most": 16}},
    "replay + skip": {
        "sampler": {"type": "replay"},
        "skip": {"solved": True, "unsolved": True, "after": 1, "retry_steps": 20},
    },
}
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t by number of seeds."""


@dataclass(frozen=True, slots=True)
class Task:
    """Problems of both sources, and the policy to begin with."""

    training: dict[str, Tensor]
    """Source -> float64 [R, WIDTH]."""
    held_out: dict[str, Tensor]
    teacher: Tensor
    """float64 [TOKENS, ALPHABET, WIDTH]: the right token is the one with the largest logit."""
    start: Tensor

    def answers(self, x: Tensor) -> Tensor:
        """int64 [n, TOKENS]."""
        return torch.einsum("lvd,nd->nlv", self.teacher, x).argmax(-1)


@dataclass(frozen=True, slots=True)
class Row:
    """What one run came to."""

    early: float
    accuracy: float
    worst: float
    samples: float
    equal: float
    cosine: float
    top_tenth: float


def task(seed: int) -> Task:
    draw = torch.Generator().manual_seed(1000 + seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    # The hard source lives mostly in dimensions that the starting policy knows little of.
    scale = {"easy": torch.ones(WIDTH).double(), "hard": torch.ones(WIDTH).double()}
    scale["easy"][WIDTH // 2 :] = 0.3
    scale["hard"][: WIDTH // 2] = 0.3
    teacher = normal(TOKENS, ALPHABET, WIDTH)
    known = torch.where(torch.arange(WIDTH) < WIDTH // 2, 0.9, 0.35)
    start = known * teacher + 0.3 * normal(TOKENS, ALPHABET, WIDTH)
    return Task(
        {name: scale[name] * normal(TRAINING, WIDTH) for name in NAMES},
        {name: scale[name] * normal(HELD_OUT, WIDTH) for name in NAMES},
        teacher,
        start,
    )


def log_p(weights: Tensor, x: Tensor) -> Tensor:
    """float64 [n, TOKENS, ALPHABET]."""
    return torch.einsum("lvd,nd->nlv", weights, x).log_softmax(-1)


def accuracy(weights: Tensor, x: Tensor, answers: Tensor) -> Tensor:
    """The probability of the whole right answer. float64 [n]."""
    return log_p(weights, x).gather(-1, answers[:, :, None])[:, :, 0].sum(1).exp()


def run_config(name: str, seed: int, groups: int, group_size: int) -> RunConfig:
    sources = [{"name": one, "source": {"type": "jsonl", "path": f"{one}.jsonl"}} for one in NAMES]
    settings = {
        "name": "samplers",
        "seed": seed,
        "device": "cpu",
        "model": {"path": "nowhere", "max_length": 32, "dtype": "float32"},
        "prompts": {"template": "none", "sources": sources, **OWN[name]},
        "rollout": {"sampling": {"max_tokens": 8, "group_size": group_size}},
        "learner": {"steps": 1, "groups_per_step": groups},
        "weights": {"type": "gloo"},
    }
    return parse(settings, folder=Path(), origin="the benchmark")


class Loop:
    """One run: the plan, the policy and the counts."""

    def __init__(self, name: str, seed: int, groups: int, group_size: int) -> None:
        self.task = task(seed)
        self.weights = self.task.start.clone().requires_grad_()
        self.draw = torch.Generator().manual_seed(seed)
        config = run_config(name, seed, groups, group_size)
        problems = [[Problem(row, "x", 0, "exact", source=one) for row in range(TRAINING)] for one in NAMES]
        self.plan = PromptPlan(config, problems)
        self.number = 0
        self.samples = 0
        self.equal = 0
        self.issued = torch.zeros(len(NAMES) * TRAINING)

    def group(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The next group: its problem [1, WIDTH], responses [n, TOKENS] and rewards [n]; it is settled at once."""
        pick = self.plan.pick(self.number, step)
        place = self.plan.place_of(pick)
        self.number += 1
        self.issued[pick.source * TRAINING + place.row] += 1
        x = self.task.training[place.source][place.row : place.row + 1]
        with torch.no_grad():
            p = log_p(self.weights, x)[0].exp()
            tokens = torch.multinomial(p, pick.group_size, replacement=True, generator=self.draw).T
        reward = (tokens == self.task.answers(x)).all(1).double()
        rate = float(reward.mean())
        self.plan.observe(place, rate, rate, step)
        self.samples += pick.group_size
        return x, tokens, reward

    def loss(self, step: int, groups: int) -> Tensor:
        """Minus the mean over responses of advantage times log-prob, of `groups` groups whose rewards differ."""
        terms: list[Tensor] = []
        kept = 0
        while kept < groups:
            x, tokens, reward = self.group(step)
            if bool((reward == reward[0]).all()):
                self.equal += 1
                continue
            kept += 1
            n = len(reward)
            none = torch.zeros(n, dtype=torch.int64)
            advantage = group_advantages(reward, none, none + TOKENS, AdvantageConfig(baseline="leave_one_out"))
            chosen = log_p(self.weights, x)[0].expand(n, -1, -1).gather(-1, tokens[:, :, None])[:, :, 0].sum(1)
            terms.append(advantage.double() * chosen)
        return -torch.cat(terms).mean()

    def true_gradient(self) -> Tensor:
        """The gradient of the mean accuracy over all training problems, each source alike."""
        whole = torch.stack(
            [accuracy(self.weights, x, self.task.answers(x)).mean() for x in self.task.training.values()]
        ).mean()
        (gradient,) = torch.autograd.grad(whole, self.weights)
        return gradient

    def held_out(self) -> list[float]:
        with torch.no_grad():
            return [float(accuracy(self.weights, x, self.task.answers(x)).mean()) for x in self.task.held_out.values()]


def one_run(name: str, seed: int, *, steps: int, groups: int, group_size: int, rate: float) -> Row:
    loop = Loop(name, seed, groups, group_size)
    optimizer = torch.optim.Adam([loop.weights], lr=rate, betas=(0.9, 0.95))
    cosines, early = [], 0.0
    look_every = max(1, steps // 4)
    for step in range(steps):
        if step % look_every == look_every // 2:
            cosines.append(cosine_of(loop, step, groups))
        optimizer.zero_grad()
        loop.loss(step, groups).backward()
        optimizer.step()
        if step + 1 == max(1, steps // 4):
            early = statistics.fmean(loop.held_out())
    found = loop.held_out()
    issued = loop.issued.sort(descending=True).values
    return Row(
        early=early,
        accuracy=statistics.fmean(found),
        worst=min(found),
        samples=loop.samples,
        equal=loop.equal / loop.number,
        cosine=statistics.fmean(cosines),
        top_tenth=float(issued[: len(issued) // 10].sum() / issued.sum()),
    )


def cosine_of(loop: Loop, step: int, groups: int) -> float:
    """Between the gradient of what the sampler issues now, without a change of weights, and that of the mean accuracy. The groups
    are part of the run: the sampler measures by them."""
    mean = torch.zeros_like(loop.weights)
    for _ in range(12):
        (gradient,) = torch.autograd.grad(-loop.loss(step, groups), loop.weights)
        mean += gradient
    true = loop.true_gradient()
    return float((mean * true).sum() / (mean.norm() * true.norm()))


def interval(values: list[float], digits: int = 3) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = T_975.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--groups", type=int, default=16, help="groups a step")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate")
    parser.add_argument("--samplers", default=",".join(OWN), help=f"of {', '.join(OWN)}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| | held-out, early | held-out | less uniform | worse source | samples | equal rewards | gradient cosine | top tenth |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    usual: list[float] = []
    for name in options.samplers.split(","):
        rows = [
            one_run(
                name,
                seed,
                steps=options.steps,
                groups=options.groups,
                group_size=options.group_size,
                rate=options.rate,
            )
            for seed in range(options.seeds)
        ]
        usual = usual or [row.accuracy for row in rows]
        cells = [
            interval([row.early for row in rows]),
            interval([row.accuracy for row in rows]),
            interval([row.accuracy - base for row, base in zip(rows, usual, strict=True)]),
            interval([row.worst for row in rows]),
            f"{statistics.fmean(row.samples for row in rows):,.0f}",
            interval([row.equal for row in rows], 2),
            interval([row.cosine for row in rows], 2),
            interval([row.top_tenth for row in rows], 2),
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
