"""Ten thousand poisoned items against one service: it answers each as it should, and afterwards all is as before.

    python -m benchmarks.verifier.poison [--items 10000] [--bombs 240] [--out .bench/verifier]

What is sent, and what has to come back, is in poison_items.py: malformed requests, nesting, floods, odd Unicode, hostile
answers and programs, unusable references, and bombs that compute until their deadline; right answers lie among them.
Several clients send at once and healthy items keep asking in between. Then it is counted what the service has left: processes,
open files, files, and memory, of itself and of the fork server. Needs Linux and, for hostile programs, bubblewrap.
"""

import argparse
import asyncio
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmarks.verifier.mixed_load import percentile
from benchmarks.verifier.poison_items import MAX_BODY_BYTES, MAX_DEPTH, Poison, poison, requests
from benchmarks.verifier.service_under_test import (
    Verifier,
    adopting_orphans,
    children,
    command_of,
    descendants,
    open_files,
    resident_bytes,
    service,
    write_report,
)

CLIENTS = 4
ANSWER_DEADLINE_S = 120.0  # no answer by then: it hangs
ASKED_AGAIN = 3  # how often at most, where the verdict is `timeout`: the machine was too busy, and says so
PAUSE_S = 0.5
HEALTHY_EVERY_S = 0.5
HEALTHY_DEADLINE_S = 30.0
SAMPLE_EVERY_S = 0.2
SETTLED_S = 20.0  # what is over is gone by then
GROWTH_SHARE, GROWTH_BYTES = 0.05, 10 * 2**20
SHOWN = 3  # wrong answers of each kind
SETTINGS: Mapping[str, Any] = {
    "processes": 2,
    "cache": {"type": "none"},
    "max_body_bytes": MAX_BODY_BYTES,
    "max_depth": MAX_DEPTH,
    "item_deadline_s": 10.0,
    "limits": {"regex": {"deadline_s": 0.4}, "math": {"deadline_s": 2.0}},
    "recycle_items": 2000,
}


class Answered(NamedTuple):
    poison: Poison
    got: str
    """Verdict, status or, where neither came, why not."""
    detail: str
    seconds: float
    """How long its request took."""
    asked: int = 1
    """More than once: the verdict was `timeout`, which is none, and as in a run it was asked again."""


@dataclass(frozen=True)
class Footprint:
    processes: dict[int, str]
    """Below the service, pid -> command."""
    open_files: dict[str, int]
    """Open files of the service and of its fork server."""
    files: list[str]


@dataclass
class Findings:
    answered: list[Answered] = field(default_factory=list)
    unhealthy: list[str] = field(default_factory=list)
    """What healthy items got that was not their verdict."""
    healthy: int = 0
    memory: list[tuple[int, int]] = field(default_factory=list)
    """Bytes of the service and of the fork server, while poison was sent."""
    seconds: float = 0.0
    before: Footprint | None = None
    after: Footprint | None = None
    orphans: list[str] = field(default_factory=list)
    """Commands of processes that lost their parent and lived on."""

    @property
    def wrong(self) -> list[Answered]:
        return [one for one in self.answered if one.got != one.poison.expected]

    @property
    def run_to_deadline(self) -> int:
        return sum(one.detail.startswith("no verdict within") for one in self.answered)

    def checks(self, count: int, bombs: int) -> dict[str, bool]:
        assert self.before is not None
        assert self.after is not None
        growth = self.growth()
        return {
            f"{count:,} answered, all as they should": len(self.answered) == count and not self.wrong,
            f"at least {bombs} ran to their deadline": self.run_to_deadline >= bombs,
            "healthy items right at any time": self.healthy > 0 and not self.unhealthy,
            "no process left": len(self.after.processes) == len(self.before.processes) and not self.orphans,
            "no open file left": self.after.open_files == self.before.open_files,
            "no file left": self.after.files == self.before.files,
            "memory of the service flat": growth["service"]["flat"],
            "memory of the fork server flat": growth["fork server"]["flat"],
        }

    def growth(self) -> dict[str, dict[str, Any]]:
        """From the second third of the run to the last: medians, since a request with a flood in it takes its bytes while it
        is read."""
        third = len(self.memory) // 3
        found = {}
        for name, sizes in zip(("service", "fork server"), zip(*self.memory, strict=True), strict=True):
            second, last = statistics.median(sizes[third : 2 * third]), statistics.median(sizes[2 * third :])
            flat = last <= (1 + GROWTH_SHARE) * second + GROWTH_BYTES
            mib = {"second_third": second / 2**20, "last_third": last / 2**20, "highest": max(sizes) / 2**20}
            found[name] = {"flat": flat, "mib": {key: round(value, 1) for key, value in mib.items()}}
        return found


def torment(items: Sequence[Poison], seed: int) -> Findings:
    """Everything against one service, from its start to its end."""
    found = Findings()
    with adopting_orphans():
        ours = set(children(os.getpid()))
        with service(SETTINGS) as verifier:
            asyncio.run(_torment(verifier, items, seed, found))
        found.orphans = [command for pid in set(children(os.getpid())) - ours if (command := command_of(pid))]
    return found


async def _torment(verifier: Verifier, items: Sequence[Poison], seed: int, found: Findings) -> None:
    # Whatever is set up at the first use of a grader is there before anything is counted.
    await _send(verifier.url, poison(seed + 1, 30, 1), seed, [])
    found.before = await _settled(verifier, None)
    watching = [asyncio.create_task(_sample(verifier, found)), asyncio.create_task(_ask_healthy(verifier.url, found))]
    start_s = time.perf_counter()
    await _send(verifier.url, items, seed, found.answered)
    found.seconds = time.perf_counter() - start_s
    for watch in watching:
        watch.cancel()
    for ended in await asyncio.gather(*watching, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    found.after = await _settled(verifier, found.before)


async def _send(url: str, items: Sequence[Poison], seed: int, answered: list[Answered]) -> None:
    waiting = requests(list(items), random.Random(seed))
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_DEADLINE_S) as client:

        async def one_client(waiting: Iterator[list[Poison]]) -> None:
            for together in waiting:
                answered.extend(await _ask_until_judged(client, together))

        await asyncio.gather(*(one_client(waiting) for _ in range(CLIENTS)))


async def _ask(client: httpx.AsyncClient, together: list[Poison]) -> list[Answered]:
    start_s = time.perf_counter()
    ids = [f"{number} \u2603" for number in range(len(together))]
    try:
        if body := together[0].body:
            answer = await client.post("/v1/score", content=body)
        else:
            batch = [{"id": one, **poison.item} for one, poison in zip(ids, together, strict=True)]
            answer = await client.post("/v1/score", json={"items": batch})
    except httpx.HTTPError as failed:
        fault = f"{type(failed).__name__}: {failed}"
        return [Answered(one, fault, "", time.perf_counter() - start_s) for one in together]
    seconds = time.perf_counter() - start_s
    if answer.status_code != 200:
        return [Answered(one, str(answer.status_code), answer.text, seconds) for one in together]
    results = answer.json()["results"]
    if [result["id"] for result in results] != ids:
        return [Answered(one, "results of other items", "", seconds) for one in together]
    return [
        Answered(one, _verdict(result), result["detail"], seconds)
        for one, result in zip(together, results, strict=True)
    ]


async def _ask_until_judged(client: httpx.AsyncClient, together: list[Poison]) -> list[Answered]:
    found = await _ask(client, together)
    for at, one in enumerate(found):
        last, asked = one, 1
        while last.got == "timeout" and asked <= ASKED_AGAIN:
            await asyncio.sleep(PAUSE_S)
            (last,) = await _ask(client, [one.poison])
            asked += 1
        found[at] = last._replace(asked=asked, seconds=one.seconds)
    return found


def _verdict(result: Mapping[str, Any]) -> str:
    """With the reward where that is not the verdict's."""
    usual = {"correct": 1.0, "incorrect": 0.0}.get(result["verdict"])
    return str(result["verdict"]) if result["reward"] == usual else f"{result['verdict']}, reward {result['reward']}"


async def _ask_healthy(url: str, found: Findings) -> None:
    item = {"id": "healthy", "grader": "exact", "response": "42", "reference": "42"}
    async with httpx.AsyncClient(base_url=url, timeout=HEALTHY_DEADLINE_S) as client:
        while True:
            found.healthy += 1
            try:
                answer = await client.post("/v1/score", json={"items": [item]})
                alive = await client.get("/healthz")
                if alive.status_code != 200 or answer.json()["results"][0]["verdict"] != "correct":
                    found.unhealthy.append(f"{alive.status_code} {answer.text}")
            except (httpx.HTTPError, ValueError, KeyError) as fault:
                found.unhealthy.append(f"{type(fault).__name__}: {fault}")
            await asyncio.sleep(HEALTHY_EVERY_S)


async def _sample(verifier: Verifier, found: Findings) -> None:
    while True:
        found.memory.append((resident_bytes(verifier.pid), resident_bytes(verifier.fork_server() or 0)))
        await asyncio.sleep(SAMPLE_EVERY_S)


async def _settled(verifier: Verifier, before: Footprint | None) -> Footprint:
    """The footprint once it looks as before, or will not any more. Nothing is asked while this waits."""
    end_s = time.monotonic() + SETTLED_S
    while True:
        await asyncio.sleep(1.0)
        found = _footprint(verifier)
        expected = 1 + SETTINGS["processes"] if before is None else len(before.processes)
        same = before is None or (found.open_files, found.files) == (before.open_files, before.files)
        if (len(found.processes) == expected and same) or time.monotonic() > end_s:
            return found


def _footprint(verifier: Verifier) -> Footprint:
    server = verifier.fork_server()
    counted = {"service": open_files(verifier.pid), "fork server": open_files(server) if server else 0}
    return Footprint({pid: command_of(pid) for pid in descendants(verifier.pid)}, counted, verifier.files())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--bombs", type=int, default=240, help="of these items")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".bench/verifier"))
    given = parser.parse_args()
    found = torment(poison(given.seed, given.items, given.bombs), given.seed)

    table = {}
    print(f"{'':12} {'items':>7} {'wrong':>7} {'again':>7} {'p50 ms':>9} {'p99 ms':>9} {'highest':>9}   of the request")
    for kind in sorted({one.poison.kind for one in found.answered}):
        ours = [one for one in found.answered if one.poison.kind == kind]
        times = [1000 * one.seconds for one in ours]
        table[kind] = {
            "items": len(ours),
            "wrong": sum(one in found.wrong for one in ours) if found.wrong else 0,
            "asked_again": sum(one.asked > 1 for one in ours),
            "p50_ms": percentile(times, 0.5),
            "p99_ms": percentile(times, 0.99),
            "highest_ms": max(times),
        }
        columns = table[kind].values()
        print(
            f"{kind:12} "
            + " ".join(f"{value:{width}.0f}" for value, width in zip(columns, (7, 7, 7, 9, 9, 9), strict=True))
        )
    shown: Counter[str] = Counter()
    for one in found.wrong:
        shown[one.poison.kind] += 1
        if shown[one.poison.kind] <= SHOWN:
            print(described(one))
    for fault in found.unhealthy[:SHOWN]:
        print(f"a healthy item got {fault[:200]}")
    print(
        f"{found.seconds:.0f} s, {found.run_to_deadline} ran to their deadline, {found.healthy} healthy items in between"
    )
    print(f"before: {found.before}\nafter:  {found.after}\norphans: {found.orphans}")
    growth = found.growth()
    for name, sizes in growth.items():
        print(f"MiB of the {name}: {sizes['mib']}")
    checks = found.checks(given.items, given.bombs * 5 // 6)
    for name, met in checks.items():
        print(f"{'met   ' if met else 'MISSED'} {name}")
    report = {
        "kinds": table,
        "wrong": [described(one) for one in found.wrong],
        "unhealthy": found.unhealthy,
        "seconds": found.seconds,
        "ran_to_deadline": found.run_to_deadline,
        "memory": growth,
        "targets_met": checks,
    }
    write_report("poison", {**report, "arguments": {**vars(given), "out": str(given.out)}}, given.out)


def described(one: Answered) -> str:
    asked = (
        one.poison.body[:120] if one.poison.body else {key: repr(value)[:120] for key, value in one.poison.item.items()}
    )
    return f"{one.poison.kind}: expected {one.poison.expected}, got {one.got} ({one.detail[:160]}) for {asked!r}"


if __name__ == "__main__":
    main()
