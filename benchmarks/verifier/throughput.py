"""Responses a second through POST /v1/score, next to the same work without a service: math-verify called directly, and our
own grader called directly, each in as many processes as the service has.

    python -m benchmarks.verifier.throughput [--rounds 5] [--items 2048] [--out .bench/verifier]

The sides take turns within each round and every round has problems of its own, so that neither the machine's mood nor what
a library remembers favours one. Clients, service and graders share the machine's cores. A reference is given to
math-verify in a box, without which it would not read LaTeX in it. The service's cache is off but for the row that says so.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from math_verify import parse, verify

from benchmarks.verifier.service_under_test import Verifier, service, write_report
from verifier.graders.math.grader import MathAnswer

GROUP_SIZE = 8  # responses to one problem, as in training
IN_FLIGHT = 4  # requests at a time: enough that no grader process waits for the next one
PROSE = (
    "Let us write $n = {a}k + r$ with $0 \\le r < {a}$ and look at each case in turn. ",
    "By symmetry we may assume that $x \\ge y$, so the sum is at most $\\frac{{{a}}}{{{b}}} \\cdot x^2$. ",
    "Substituting back gives $({a} - {b})^2 + 2 \\cdot {a} \\cdot {b}$, which simplifies as claimed. ",
    "There are {a} ways to choose the first and {b} ways to choose the second, independently. ",
    "Hmm, wait, that counts some of them twice. Let me subtract the {b} that are common to both. ",
)


class Item(NamedTuple):
    response: str
    reference: str


Batch = list[Item]
Side = Callable[[Sequence[Batch]], float]
"""Judges the batches and says how many items a second it did."""


def problems(seed: int, count: int) -> list[Item]:
    """Answers of the kinds that training sets ask for, mostly numbers; half of the responses wrong, one in eight unboxed."""
    rng = random.Random(seed)
    items: list[Item] = []
    while len(items) < count:
        reference, wrong = _answer(rng)
        for _ in range(GROUP_SIZE):
            a, b = rng.randint(2, 99), rng.randint(2, 99)
            prose = "".join(rng.choice(PROSE).format(a=a, b=b) for _ in range(rng.randint(4, 30)))
            said = rng.choice((reference, wrong))
            ending = f"The answer is ${said}$." if rng.random() < 1 / 8 else f"The answer is \\boxed{{{said}}}."
            items.append(Item(prose + ending, reference))
    rng.shuffle(items)
    return items[:count]


def _answer(rng: random.Random) -> tuple[str, str]:
    """A right and a wrong one."""
    a, b, c = rng.randint(2, 9999), rng.randint(2, 999), rng.randint(2, 99)
    kinds: list[Callable[[int], str]] = [
        lambda d: f"\\frac{{{a + d}}}{{{b}}}",
        lambda d: f"{a}.{b + d}",
        lambda d: f"{c + d}\\sqrt{{{b}}}",
        lambda d: f"\\frac{{{c} + \\sqrt{{{b + d}}}}}{{2}}",
        lambda d: f"{c}x^2 + {b + d}x - {a}",
        lambda d: f"{c + d}\\pi",
        lambda d: f"({c}, {b + d})",
        lambda d: f"[{c}, {a + 100 + d})",
        lambda d: f"2^{{{c + d}}} - {b}",
        lambda d: f"x = {a + d}",
    ]
    write = (lambda d: str(a + d)) if rng.random() < 0.5 else rng.choice(kinds)
    return write(0), write(rng.randint(1, 9))


def in_batches(items: Sequence[Item], size: int) -> list[Batch]:
    return [list(items[at : at + size]) for at in range(0, len(items), size)]


def bare_batch(batch: Batch) -> int:
    """As the documentation of math-verify has it; in another process."""
    return sum(bool(verify(parse(f"\\boxed{{{item.reference}}}"), parse(item.response))) for item in batch)


def own_batch(batch: Batch) -> int:
    grader = MathAnswer()
    return sum(grader.score(item.response, item.reference).correct for item in batch)


def direct(pool: ProcessPoolExecutor, judge: Callable[[Batch], int]) -> Side:
    def run(batches: Sequence[Batch]) -> float:
        start_s = time.perf_counter()
        right = sum(pool.map(judge, batches))
        seconds, items = time.perf_counter() - start_s, sum(map(len, batches))
        # Half are wrong: a side that finds far more or fewer right has not judged them.
        assert 0.3 < right / items < 0.7, f"{right} of {items} right"
        return items / seconds

    return run


def over_http(verifier: Verifier, grader: str) -> Side:
    def run(batches: Sequence[Batch]) -> float:
        return asyncio.run(_over_http(verifier.url, grader, batches))

    return run


async def _over_http(url: str, grader: str, batches: Sequence[Batch]) -> float:
    bodies = iter(
        [
            {"items": [{"id": str(at), "grader": grader, **item._asdict()} for at, item in enumerate(batch)]}
            for batch in batches
        ]
    )
    right = 0
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as client:

        async def ask() -> None:
            nonlocal right
            for body in bodies:
                results = (await client.post("/v1/score", json=body)).raise_for_status().json()["results"]
                assert not [result for result in results if result["reward"] is None], "an error or a timeout"
                right += sum(result["verdict"] == "correct" for result in results)

        start_s = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))
        seconds = time.perf_counter() - start_s
    items = sum(map(len, batches))
    assert 0.3 < right / items < 0.7, f"{right} of {items} right"
    return items / seconds


def exact_items(seed: int, count: int) -> list[Item]:
    return [Item(str(number + number % 2), str(number)) for number in range(seed * count, (seed + 1) * count)]


def rounds_of(sides: dict[str, Side], work: Callable[[int], Sequence[Batch]], rounds: int) -> dict[str, list[float]]:
    """Side -> items a second in each round, after one round that is not counted. Who begins changes."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        batches = work(number)
        for name, side in _turned(list(sides.items()), number):
            speed = side(batches)
            if number > 0:
                found[name].append(speed)
    return found


def _turned(sides: list[tuple[str, Side]], number: int) -> Iterator[tuple[str, Side]]:
    for at in range(len(sides)):
        yield sides[(at + number) % len(sides)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--items", type=int, default=2048, help="for math, in each round and for each side")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".bench/verifier"))
    given = parser.parse_args()
    settings: dict[str, Any] = {"processes": given.processes, "cache": {"type": "none"}, "recycle_items": 10**9}
    speeds: dict[str, list[float]] = {}

    with ProcessPoolExecutor(given.processes) as pool, service(settings) as verifier:
        sides = {
            "math-verify, called directly": direct(pool, bare_batch),
            "our grader, called directly": direct(pool, own_batch),
            "/v1/score, math": over_http(verifier, "math"),
        }
        speeds |= rounds_of(sides, lambda number: in_batches(problems(number, given.items), 64), given.rounds)
    with service({**settings, "cache": {"type": "memory"}}) as verifier:
        # The same problems in every round: all but the first find their verdicts kept.
        same = in_batches(problems(0, given.items), 64)
        speeds |= rounds_of({"/v1/score, math, cached": over_http(verifier, "math")}, lambda _: same, given.rounds)
    with service(settings) as verifier:
        for size in (64, 512):
            side = {f"/v1/score, exact, batch {size}": over_http(verifier, "exact")}
            work = [in_batches(exact_items(number, 16_384), size) for number in range(given.rounds + 1)]
            speeds |= rounds_of(side, work.__getitem__, given.rounds)

    medians = {name: statistics.median(found) for name, found in speeds.items()}
    ratios = {
        "to math-verify": ratio(speeds, "/v1/score, math", "math-verify, called directly"),
        "to our grader": ratio(speeds, "/v1/score, math", "our grader, called directly"),
    }
    print(f"{'':34} {'items/s':>9} {'lowest':>9} {'highest':>9}")
    for name, found in speeds.items():
        print(f"{name:34} {medians[name]:9.0f} {min(found):9.0f} {max(found):9.0f}")
    targets = {
        "math >= 0.85 of math-verify": ratios["to math-verify"] >= 0.85,
        "exact, batch 64 >= 3,000 items/s": medians["/v1/score, exact, batch 64"] >= 3000,
        "exact, batch 512 >= 3,000 items/s": medians["/v1/score, exact, batch 512"] >= 3000,
    }
    for name, value in ratios.items():
        print(f"/v1/score, math, {name}: {value:.2f} (median of the rounds' ratios)")
    for name, met in targets.items():
        print(f"{'met   ' if met else 'MISSED'} {name}")
    report = {"items_per_s": speeds, "medians": medians, "ratios": ratios, "targets_met": targets}
    write_report("throughput", {**report, "arguments": {**vars(given), "out": str(given.out)}}, given.out)


def ratio(speeds: dict[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(speeds[one], speeds[other], strict=True))


if __name__ == "__main__":
    main()
