"""How long a healthy request waits while, next to it, responses hold grader processes until their deadline.

    python -m benchmarks.verifier.mixed_load [--rounds 3] [--seconds 60] [--rate REQUESTS_PER_S] [--out .bench/verifier]

Open loop: requests of 1 to 8 healthy items, half `math` and half `exact`, leave at random moments whether or not earlier
ones have come back, and a latency counts from the moment at which the request was due. Of the poisoned requests, one of 50,
each holds one item that computes until the deadline, in C (a pattern that backtracks) or in sympy (an integral). Healthy
requests alone and the same ones with poison among them take turns.

Load generator, service and graders share the machine's cores. So all that is sent, poison included, is to keep it busy for
30 % of the time: what healthy requests cost comes from how many a second are answered without a pause, which is measured
first, and a bomb costs one core for the whole deadline. At 200 healthy requests a second without a pause, on two cores, that
is 12 a second, of whose work the one poisoned request every four seconds is five times as much as all of the healthy ones.
"""

import argparse
import asyncio
import itertools
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmarks.verifier.service_under_test import service, write_report
from benchmarks.verifier.throughput import exact_items, problems

DEADLINE_S = 2.0
POISON_SHARE = 0.02
LOAD_SHARE = 0.3  # of the time, the machine has something to do
MOST_ITEMS = 8
CAPACITY_REQUESTS = 400
BOMBS = (
    {"grader": "regex", "response": "{n} " + "a" * 60 + "!", "reference": r"\d+ (a|aa)+"},
    {
        "grader": "math",
        "response": r"\boxed{{\int_0^1 \frac{{x^{{{n}}} \sin(x^3)}}{{\sqrt{{1 + x^7}}}} dx}}",
        "reference": "5",
    },
)
Body = dict[str, Any]


class Sent(NamedTuple):
    poison: bool
    seconds: float
    """From the moment when it was due."""
    fault: str
    """What is wrong with the answer; empty: nothing."""


def healthy_requests(seed: int) -> Iterator[Body]:
    """Without end. No problem comes twice."""
    rng = random.Random(seed)
    for number in itertools.count(seed * 1000):
        grader = rng.choice(("math", "exact"))
        make = problems if grader == "math" else exact_items
        items = make(number, rng.randint(1, MOST_ITEMS))
        yield {"items": [{"id": str(at), "grader": grader, **item._asdict()} for at, item in enumerate(items)]}


def bomb(number: int) -> Body:
    """No problem comes twice, so that none can be remembered."""
    chosen = BOMBS[number % len(BOMBS)]
    return {"items": [{"id": "bomb", **chosen, "response": chosen["response"].format(n=100 + number)}]}


async def ask(client: httpx.AsyncClient, body: Body, due_s: float, *, poison: bool) -> Sent:
    try:
        answer = await client.post("/v1/score", json=body)
        verdicts = {result["verdict"] for result in answer.raise_for_status().json()["results"]}
        fault = ", ".join(sorted(verdicts - ({"incorrect"} if poison else {"correct", "incorrect"})))
    except httpx.HTTPError as failed:
        fault = f"{type(failed).__name__}: {failed}"
    return Sent(poison, time.perf_counter() - due_s, fault)


async def capacity(url: str, in_flight: int = 8) -> float:
    """Healthy requests a second, asked without a pause. The first ones, which import the graders, do not count."""
    source = healthy_requests(0)
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as client:

        async def some(bodies: Iterator[Body]) -> None:
            for body in bodies:
                (await client.post("/v1/score", json=body)).raise_for_status()

        await some(itertools.islice(source, 20))
        bodies = iter(list(itertools.islice(source, CAPACITY_REQUESTS)))
        start_s = time.perf_counter()
        await asyncio.gather(*(some(bodies) for _ in range(in_flight)))
        return CAPACITY_REQUESTS / (time.perf_counter() - start_s)


def moderate_rate(most: float, cores: int) -> float:
    """Healthy requests a second which, poison among them, keep the cores busy for LOAD_SHARE of the time. most: what they
    answer of healthy ones alone."""
    return LOAD_SHARE / (1 / most + POISON_SHARE / (1 - POISON_SHARE) * DEADLINE_S / cores)


async def load(url: str, seed: int, rate: float, seconds: float, *, poisoned: bool) -> list[Sent]:
    """The same seed sends the same healthy requests at the same moments."""
    rng, source = random.Random(seed), healthy_requests(seed)
    plan, at_s = [], 0.0
    while (at_s := at_s + rng.expovariate(rate)) < seconds:
        plan.append((at_s, next(source), False))
    if poisoned:
        count = round(len(plan) * POISON_SHARE / (1 - POISON_SHARE))
        plan += [(rng.uniform(0, seconds), bomb(seed * 1000 + number), True) for number in range(count)]
        plan.sort(key=lambda planned: planned[0])
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120.0, limits=limits) as client:
        start_s, asked = time.perf_counter(), []
        for at_s, body, poison in plan:
            await asyncio.sleep(max(0.0, start_s + at_s - time.perf_counter()))
            asked.append(asyncio.create_task(ask(client, body, start_s + at_s, poison=poison)))
        return await asyncio.gather(*asked)


def percentile(seconds: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed; 0 when there are none."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each side in each round")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--rate", type=float, help="healthy requests a second; without it what keeps the machine 30 %% busy"
    )
    parser.add_argument("--out", type=Path, default=Path(".bench/verifier"))
    given = parser.parse_args()
    settings = {"processes": given.processes, "cache": {"type": "none"}, "item_deadline_s": DEADLINE_S}
    alone: list[list[Sent]] = []
    mixed: list[list[Sent]] = []

    with service(settings) as verifier:
        most = asyncio.run(capacity(verifier.url))
        rate = given.rate or moderate_rate(most, len(os.sched_getaffinity(0)))
        print(f"{most:.0f} healthy requests a second without a pause; sending {rate:.1f} a second")
        for number in range(1, given.rounds + 1):
            sides = [(alone, False), (mixed, True)]
            for found, poisoned in sides if number % 2 else reversed(sides):
                found.append(asyncio.run(load(verifier.url, number, rate, given.seconds, poisoned=poisoned)))

    rows = {
        "healthy, alone": [sent for sents in alone for sent in sents],
        "healthy, beside poison": [sent for sents in mixed for sent in sents if not sent.poison],
        "poison": [sent for sents in mixed for sent in sents if sent.poison],
    }
    table = {}
    print(f"{'':24} {'requests':>9} {'p50 ms':>9} {'p99 ms':>9} {'highest':>9} {'wrong':>9}")
    for name, sents in rows.items():
        times = [1000 * sent.seconds for sent in sents]
        table[name] = {
            "requests": len(sents),
            "p50_ms": percentile(times, 0.5),
            "p99_ms": percentile(times, 0.99),
            "highest_ms": max(times, default=0.0),
            "wrong": sum(bool(sent.fault) for sent in sents),
        }
        print(f"{name:24} " + " ".join(f"{value:9.0f}" for value in table[name].values()))
    for fault in sorted({sent.fault for sents in rows.values() for sent in sents if sent.fault}):
        print(f"wrong: {fault}")

    ratios = [p99(with_poison) / p99(without) for without, with_poison in zip(alone, mixed, strict=True)]
    pooled = table["healthy, beside poison"]["p99_ms"] / table["healthy, alone"]["p99_ms"]
    print(
        f"healthy p99 beside poison to alone: {pooled:.2f}; median of the rounds' ratios {statistics.median(ratios):.2f}"
    )
    targets = {
        f"poison p99 <= deadline + 0.5 s = {DEADLINE_S + 0.5:g} s": table["poison"]["p99_ms"]
        <= 1000 * (DEADLINE_S + 0.5),
        "healthy p99 beside poison <= 2 times alone": pooled <= 2,
        "every verdict as expected": not any(row["wrong"] for row in table.values()),
    }
    for name, met in targets.items():
        print(f"{'met   ' if met else 'MISSED'} {name}")
    report = {
        "capacity_requests_per_s": most,
        "rate_requests_per_s": rate,
        "deadline_s": DEADLINE_S,
        "latencies": table,
        "ratios": {"pooled": pooled, "rounds": ratios},
        "targets_met": targets,
    }
    write_report("mixed_load", {**report, "arguments": {**vars(given), "out": str(given.out)}}, given.out)


def p99(sents: Sequence[Sent]) -> float:
    """The 99th percentile of the seconds of the healthy ones."""
    return percentile([sent.seconds for sent in sents if not sent.poison], 0.99)


if __name__ == "__main__":
    main()
