"""A run that goes on and on: does any process, or any stream, grow?

    python -m benchmarks.soak [--minutes 120] [--every-s 10] [--replicas 2] [--group-s 0.3] [--out FILE]

Real: the learner (DeepSpeed, the model of examples/addition), the verifier with its grader processes, Redis, the replicas'
processes. Paced: their engines, which have no model and take --group-s for a group. Each --every-s seconds
the anonymous memory of every process is looked at (its proportional share of what it shares with others, where the kernel says
that), and the length of every stream. A service that has children has a row for them together.

Growth is the median of the last tenth over the median of the tenth that follows the first quarter of an hour (of the run, where
that is shorter). No process may grow by more than 2 %. A stream grows if its median in the last quarter is above the highest
that it had in the second quarter. What grows by design is said as well: the lines of steps.jsonl and their like in the run
folder. Exit code 1 if anything grew.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from services.clock import now_s
from services.command.redis_server import RedisServer
from services.command.run_processes import write_settings
from services.command.supervisor import Service, Supervisor
from services.errors import StreamError
from services.run.audit import audit
from services.run.folder import RunFolder
from services.streams.redis_connection import RedisConnection
from tests.chaos.stage import fresh_services_of, make_example, services_of, set_pace, settings_of, steps_taken

MOST_GROWTH = 0.02
SETTLES_S = 900.0
"""Growth counts from here on: before it, caches and streams fill."""
GROUPS_PER_STEP = 4
KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment."""

    at_s: float
    """Since the first step."""
    steps: int
    memory_bytes: Mapping[str, int]
    """Process, or children of a process -> see the function of this name."""
    streams: Mapping[str, int]
    """Stream -> entries."""
    redis_bytes: int
    """What Redis says that its data take."""
    folder_bytes: int
    """Everything in the run folder but Redis's file."""


def memory_bytes(pid: int) -> int | None:
    """The memory that a process has for itself (anonymous): its share of what it shares with a fork of it, or all where the
    kernel does not say. Pages of files, such as libraries, are not counted: they are shared with whatever else runs here, and
    a share of them changes with that. None: it has ended."""
    try:
        for file, wanted in (("smaps_rollup", "Pss_Anon:"), ("status", "RssAnon:")):
            path = Path(f"/proc/{pid}/{file}")
            if path.exists():
                for line in path.read_text(encoding="utf-8").splitlines():
                    if line.startswith(wanted):
                        return int(line.split()[1]) * KIB
    except OSError:
        pass  # it ended while it was looked at
    return None


def descendants(pid: int) -> list[int]:
    """Every process that this one, or a child of it, has started and that has not ended."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has just ended
        children[parent].append(int(folder.name))
    found, new = list[int](), [pid]
    while new:
        new = [child for parent in new for child in children[parent]]
        found += new
    return found


def settled(samples: Sequence[Sample]) -> int:
    """The index of the first sample that counts for growth."""
    early = sum(one.at_s < SETTLES_S for one in samples)
    return min(early, len(samples) // 4)


def growth(values: Sequence[float], since: int) -> float | None:
    """How much the last tenth is above the tenth that begins at the index `since`, as a fraction; None for too few values."""
    tenth = len(values) // 10
    if not tenth:
        return None
    return statistics.median(values[-tenth:]) / statistics.median(values[since:][:tenth]) - 1.0


def has_grown(lengths: Sequence[int]) -> bool:
    """Whether a stream is longer in the last quarter than it ever was in the second."""
    quarter = len(lengths) // 4
    return quarter > 0 and statistics.median(lengths[-quarter:]) > max(lengths[quarter : 2 * quarter])


def series(samples: Sequence[Sample]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The memory of each process, and the length of each stream, over time; 0 where it was not there."""
    memory = {name: [one.memory_bytes.get(name, 0) for one in samples] for name in _names(samples, "memory_bytes")}
    streams = {name: [one.streams.get(name, 0) for one in samples] for name in _names(samples, "streams")}
    return memory, streams


def _names(samples: Sequence[Sample], field: str) -> list[str]:
    return sorted({name for one in samples for name in getattr(one, field)})


def grown(samples: Sequence[Sample]) -> list[str]:
    """The processes and streams that grew, and Redis's data."""
    memory, streams = series(samples)
    since = settled(samples)
    too_much = [name for name, values in memory.items() if (growth(values, since) or 0.0) > MOST_GROWTH]
    return too_much + [name for name, lengths in streams.items() if has_grown(lengths)]


def table(samples: Sequence[Sample]) -> str:
    """Markdown: a row for each process and each stream."""
    memory, streams = series(samples)
    quarter, since = len(samples) // 4, settled(samples)
    lines = [
        f"| process | after {samples[since].at_s / 60:.0f} min | at the end | growth |",
        "| --- | ---: | ---: | ---: |",
    ]
    rows = {
        **memory,
        "Redis's data": [one.redis_bytes for one in samples],
        "run folder": [one.folder_bytes for one in samples],
    }
    for name, values in rows.items():
        more = growth(values, since)
        said = "not known" if more is None else f"{100 * more:+.1f} %"
        lines.append(f"| {name} | {values[since] / MIB:.1f} MiB | {values[-1] / MIB:.1f} MiB | {said} |")
    lines += [
        "",
        "| stream | highest in the second quarter | median of the last | grew |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, lengths in streams.items():
        last = statistics.median(lengths[-max(quarter, 1) :])
        highest = max(lengths[quarter : 2 * quarter], default=0)
        lines.append(f"| {name} | {highest} | {last:g} | {'yes' if has_grown(lengths) else 'no'} |")
    first, end = samples[0], samples[-1]
    taken, seconds = end.steps - first.steps, end.at_s - first.at_s
    lines.append(f"\n{taken} steps in {seconds:.0f} s, {taken / seconds:.2f} a second; {len(samples)} samples.")
    return "\n".join(lines)


class Soak:
    """One run, looked at again and again."""

    def __init__(self, folder: Path, replicas: int, group_s: float, *, is_forked: bool) -> None:
        """is_forked: services are forked from a process that has imported everything, which is quick and makes their memory a
        share of that one's; else they are programs of their own."""
        overrides = ["name=soak", "learner.steps=1000000", f"learner.groups_per_step={GROUPS_PER_STEP}"]
        self._config = settings_of(folder, [*overrides, f"rollout.replicas={replicas}"])
        self._folder = RunFolder(self._config.folder)
        self._server = RedisServer(folder / "redis")
        self._connection = RedisConnection(self._server.url)
        names = ["learner", "verifier", *(f"rollout-{number}" for number in range(replicas))]
        make = services_of if is_forked else fresh_services_of
        self._services: dict[str, Service] = dict(make(self._folder, names, lambda _: self._server.url))
        self._group_s = group_s
        self.samples: list[Sample] = []
        self.audit = "not done"

    def go(self, seconds: float, every_s: float) -> None:
        """Run for so long after the first step, and look each every_s."""
        self._folder.services.mkdir(parents=True)
        write_settings(self._config, self._folder)
        set_pace(self._folder, self._group_s)
        learner, *feeding = self._services.values()
        begun_s: float | None = None

        def tick() -> None:
            nonlocal begun_s
            if begun_s is None:
                begun_s = now_s() if steps_taken(self._folder) else None
            elif now_s() >= begun_s + every_s * len(self.samples):
                self.samples.append(self._sample(now_s() - begun_s))

        try:
            with self._server:
                supervisor = Supervisor(
                    learner, feeding, shutdown_s=self._config.deadlines.shutdown_s, redis=self._server
                )
                supervisor.run(lambda: begun_s is not None and now_s() - begun_s > seconds, tick)
                found = audit(self._folder.path, self._connection)
                self.audit = "clean" if found.is_clean else f"not clean: {found.problems}"
        finally:
            for service in self._services.values():
                service.clear_away()
            self._connection.close()

    def _sample(self, at_s: float) -> Sample:
        memory: dict[str, int] = {}
        pids = {name: service.process.pid for name, service in self._services.items() if service.process is not None}
        for name, pid in (pids | {"Redis": self._server.pid or 0}).items():
            own = memory_bytes(pid)
            children = [found for child in descendants(pid) if (found := memory_bytes(child)) is not None]
            if own is not None:
                memory[name] = own
            if children and name in pids:
                memory[f"{name}'s children"] = sum(children)
        try:
            streams, redis_bytes = self._on_redis()
        except StreamError:
            streams, redis_bytes = {}, 0
        folder_bytes = sum(file.stat().st_size for file in self._folder.path.rglob("*") if file.is_file())
        return Sample(at_s, steps_taken(self._folder), memory, streams, redis_bytes, folder_bytes)

    def _on_redis(self) -> tuple[dict[str, int], int]:
        prefix = f"ratchet:{self._config.name}:"
        keys = self._connection.execute("KEYS", f"{prefix}*")
        lengths = {
            key.decode().removeprefix(prefix): int(self._connection.execute("XLEN", key))
            for key in keys
            if self._connection.execute("TYPE", key) == b"stream"
        }
        return lengths, self._connection.memory().used_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--every-s", type=float, default=10.0)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--group-s", type=float, default=0.3, help="that an engine takes for a group")
    parser.add_argument("--out", type=Path, default=Path(".bench/soak.json"))
    asked = parser.parse_args()
    make_example()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), asked.replicas, asked.group_s, is_forked=False)
        soak.go(asked.minutes * 60, asked.every_s)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report(soak, asked), indent=1), encoding="utf-8")
    too_much = grown(soak.samples)
    print(table(soak.samples))
    print(f"Grew: {', '.join(too_much) or 'nothing'}. The audit is {soak.audit}.")
    return 1 if too_much or soak.audit != "clean" else 0


def report(soak: Soak, asked: argparse.Namespace) -> dict[str, Any]:
    """For the JSON: every sample."""
    memory, streams = series(soak.samples)
    return {
        "machine": machine(["torch"]),
        "asked": vars(asked) | {"out": str(asked.out)},
        "audit": soak.audit,
        "grew": grown(soak.samples),
        "at_s": [round(one.at_s, 1) for one in soak.samples],
        "steps": [one.steps for one in soak.samples],
        "memory_bytes": memory,
        "streams": streams,
        "redis_bytes": [one.redis_bytes for one in soak.samples],
        "folder_bytes": [one.folder_bytes for one in soak.samples],
    }


if __name__ == "__main__":
    sys.exit(main())
