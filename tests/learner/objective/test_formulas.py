"""Every objective against its formula, in float64 and token by token, written down here and nowhere taken from the code.

Each formula gives the value of a token and its derivative by the token's own log-prob; what is under a stop-gradient is a plain
number. The formulas have the published defaults in them as numbers.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from learner.objective import OBJECTIVES
from learner.objective.tokens import Tokens
from services.config.objectives.registry import OURS
from tests.learner.every_objective import settings
from tests.learner.objective.strategies import ragged, tokens_of

Pair = tuple[float, float]
"""Value and derivative."""


@dataclass
class Sequence:
    """One response in plain numbers, a list for each policy."""

    now: list[float]
    proximal: list[float]
    behavior: list[float]
    reference: list[float]
    teachers: list[list[float]]
    advantage: float


def sequences(tokens: Tokens) -> list[Sequence]:
    ends = [0, *tokens.lengths.cumsum(0).tolist()]
    return [
        Sequence(
            now=tokens.current_logp[start:end].tolist(),
            proximal=tokens.proximal_logp[start:end].tolist(),
            behavior=tokens.behavior_logp[start:end].tolist(),
            reference=tokens.reference_logp[start:end].tolist(),
            teachers=[row[start:end].tolist() for row in tokens.teacher_logp],
            advantage=float(tokens.advantage[start]),
        )
        for start, end in itertools.pairwise(ends)
    ]


def clipped(r: float, a: float, low: float, high: float, dual: float = math.inf) -> Pair:
    """min(r A, clip(r) A), for A < 0 at least dual x A; its derivative by log r is r A where r A itself is chosen."""
    bounded = min(max(r, low), high)
    value, slope = (r * a, r * a) if r * a <= bounded * a else (bounded * a, 0.0)
    return (dual * a, 0.0) if a < 0 and value < dual * a else (value, slope)


def ppo(low: float, high: float, dual: float = math.inf) -> Callable[[list[Sequence]], list[Pair]]:
    return lambda rows: [
        clipped(math.exp(x - y), s.advantage, low, high, dual)
        for s in rows
        for x, y in zip(s.now, s.proximal, strict=True)
    ]


def owpo(rows: list[Sequence]) -> list[Pair]:
    found = []
    for s in rows:
        for x, y, ref in zip(s.now, s.proximal, s.reference, strict=True):
            sign = math.copysign(1.0, s.advantage)
            w = min(max(math.exp(-sign * (x - ref)), 0.5), 2.0)
            value, slope = clipped(math.exp(x - y), s.advantage, 0.8, 1.28)
            found.append((w * value, w * slope))
    return found


def owpo_reinforce(rows: list[Sequence]) -> list[Pair]:
    found = []
    for s in rows:
        for x, ref in zip(s.now, s.reference, strict=True):
            ratio = math.exp(ref - x) if s.advantage > 0 else math.exp(x - ref)
            w = min(max(ratio, 0.5), 2.0)
            found.append((w * s.advantage * x, w * s.advantage))
    return found


def weighted(weight: Callable[[Sequence, int], float]) -> Callable[[list[Sequence]], list[Pair]]:
    """sg[weight] log pi."""
    return lambda rows: [(weight(s, t) * x, weight(s, t)) for s in rows for t, x in enumerate(s.now)]


def gspo(rows: list[Sequence]) -> list[Pair]:
    found = []
    for s in rows:
        mean = sum(x - y for x, y in zip(s.now, s.proximal, strict=True)) / len(s.now)
        found += [clipped(math.exp(mean), s.advantage, 1 - 3e-4, 1 + 4e-4)] * len(s.now)
    return found


def sapo(rows: list[Sequence]) -> list[Pair]:
    found = []
    for s in rows:
        tau = 1.0 if s.advantage > 0 else 1.05
        for x, y in zip(s.now, s.proximal, strict=True):
            r = math.exp(x - y)
            gate = 1 / (1 + math.exp(-tau * (r - 1)))
            found.append((4 / tau * gate * s.advantage, 4 * gate * (1 - gate) * r * s.advantage))
    return found


def acpo(rows: list[Sequence]) -> list[Pair]:
    flat = [(x, math.exp(x - y), s.advantage) for s in rows for x, y in zip(s.now, s.proximal, strict=True)]
    bins = [min(4, int(5 * math.exp(x))) for x, _, _ in flat]
    width = {}
    for b in set(bins):
        ratios = [r for (_, r, _), own in zip(flat, bins, strict=True) if own == b]
        mean = sum(ratios) / len(ratios)
        variance = sum((r - mean) ** 2 for r in ratios) / len(ratios)
        width[b] = min(max(0.2 + 3.0 * math.sqrt(variance + 1e-8), 0.0), 3.0)
    return [clipped(r, a, 1 - width[b], 1 + width[b], 3.0) for (_, r, a), b in zip(flat, bins, strict=True)]


def bapo(rows: list[Sequence]) -> list[Pair]:
    flat = [(math.exp(x - y), s.advantage) for s in rows for x, y in zip(s.now, s.proximal, strict=True)]
    low, high = 0.6, 1.2

    def short() -> bool:
        positive = sum(min(r, high) * a for r, a in flat if a >= 0)
        negative = sum(max(r, low) * -a for r, a in flat if a < 0)
        return negative > 0 and positive < negative

    while low < 0.8 and short():
        low = min(low + 0.05, 0.8)
    while high < 2.0 and short():
        high = min(high + 0.05, 2.0)
    return [clipped(r, a, low, high, 3.0) for r, a in flat]


def smallest_prefix(s: Sequence, t: int) -> float:
    rho = [math.exp(x - y) for x, y in zip(s.now, s.behavior, strict=True)]
    return min([rho[t] * min(rho[:t]) if t else rho[t], 8.0]) * s.advantage


def decoupled(rows: list[Sequence]) -> list[Pair]:
    found = []
    for s in rows:
        for x, y, mu in zip(s.now, s.proximal, s.behavior, strict=True):
            c = math.exp(y - mu)
            value, slope = clipped(math.exp(x - y), s.advantage, 0.8, 1.2)
            found.append((c * value, c * slope) if c <= 5.0 else (0.0, 0.0))
    return found


def ppo_ewma(rows: list[Sequence]) -> list[Pair]:
    found = []
    for s in rows:
        for x, average, mu in zip(s.now, s.reference, s.behavior, strict=True):
            c = min(math.exp(average - max(mu, x - math.log(100.0))), 100.0)
            value, slope = clipped(math.exp(x - average), s.advantage, 0.8, 1.2)
            found.append((c * value, c * slope))
    return found


def distilled(outcome: float, teachers: int) -> Callable[[list[Sequence]], list[Pair]]:
    def formula(rows: list[Sequence]) -> list[Pair]:
        found = []
        for s in rows:
            for t, (x, y) in enumerate(zip(s.now, s.proximal, strict=True)):
                taught = sum(row[t] for row in s.teachers[:teachers]) / teachers
                value = math.exp(x - y) * (taught - y + outcome * s.advantage)
                found.append((value, value))
        return found

    return formula


def popo_ratio(rows: list[Sequence]) -> list[Pair]:
    """Without its similarity, which is in test_popo_ratio.py."""
    found = []
    for s in rows:
        mean = sum(x - y for x, y in zip(s.now, s.reference, strict=True)) / len(s.now)
        ratio = math.exp(mean)
        pair = (min(ratio, 1.2) * s.advantage, ratio * s.advantage if ratio <= 1.2 else 0.0)
        found += [pair if s.advantage > 0 else (0.0, 0.0)] * len(s.now)
    return found


def p3o(rows: list[Sequence]) -> list[Pair]:
    rho = [math.exp(x - y) for s in rows for x, y in zip(s.now, s.behavior, strict=True)]
    ess = sum(rho) ** 2 / sum(w * w for w in rho) / len(rho)
    found = []
    for s in rows:
        for x, y in zip(s.now, s.behavior, strict=True):
            w = min(math.exp(x - y), ess) * s.advantage
            found.append((w * x - (1 - ess) * (y - x), w + (1 - ess)))
    return found


FORMULAS: dict[str, Callable[[list[Sequence]], list[Pair]]] = {
    "owpo": owpo,
    "owpo_reinforce": owpo_reinforce,
    "reinforce": weighted(lambda s, t: s.advantage),
    "grpo": ppo(0.8, 1.2),
    "dr_grpo": ppo(0.8, 1.2),
    "mc_grpo": ppo(0.8, 1.2),
    "maxrl": ppo(0.8, 1.2),
    "dapo": ppo(0.8, 1.28, 3.0),
    "cispo": weighted(lambda s, t: min(max(math.exp(s.now[t] - s.proximal[t]), 0.0), 1.2) * s.advantage),
    "gspo": gspo,
    "sapo": sapo,
    "acpo": acpo,
    "bapo": bapo,
    "minpro": weighted(smallest_prefix),
    "decoupled_ppo": decoupled,
    "ppo_ewma": ppo_ewma,
    "asymre": weighted(lambda s, t: s.advantage + 0.1),
    "popo_ratio": popo_ratio,
    "opmd": weighted(lambda s, t: s.advantage / 2),
    "opd": distilled(0.0, teachers=1),
    "mopd": distilled(1.0, teachers=2),
    "p3o": p3o,
}
ELSEWHERE = {"popo": "test_popo.py"}
"""Objectives that are not a sum over tokens of their own, and the file that has their formula."""


def test_every_objective_has_its_formula() -> None:
    assert sorted({*FORMULAS, *ELSEWHERE}) == sorted(OURS)


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("seed", range(6))
def test_value_and_gradient_are_those_of_the_formula(kind: str, seed: int) -> None:
    tokens = tokens_of(ragged(seed), on_policy=False, dtype=torch.float64)
    changes = {"objective": {"type": kind, "similarity": 0.0}} if kind == "popo_ratio" else {}
    objective, own = OBJECTIVES[kind], settings(kind, **changes).objective
    seen = dataclasses.replace(tokens, teacher_logp=tokens.teacher_logp[: max(1, own.teachers[0])])
    if objective.statistics is not None:
        seen = dataclasses.replace(seen, statistics=objective.statistics(seen, own))
    value = objective.token_weight(seen, own) * objective.surrogate(seen, own)
    (got,) = torch.autograd.grad(value.sum(), tokens.logp)
    expected = FORMULAS[kind](sequences(tokens))
    assert value.tolist() == pytest.approx([v for v, _ in expected], rel=1e-6, abs=1e-9)
    assert got.tolist() == pytest.approx([d for _, d in expected], rel=1e-6, abs=1e-9)
