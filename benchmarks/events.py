"""Replicas join, leave, are killed and suspended a hundred times in one run, and nothing else of it is to notice.

    python -m benchmarks.events [--events 100] [--seed 0] [--blocks 4] [--every-s 5] [--rest-s 40] [--group-s 2] [--out FILE]

Real: the learner (DeepSpeed, the model of examples/addition), the verifier, Redis, the replicas' processes with their streams,
leases and receivers over gloo. Paced: their engines take --group-s for a group, so that the credits that are out decide how
fast the run is, and not this machine. Blocks of events alternate with rests in which the four replicas of the beginning are
there and nothing happens: steps/s during the events over steps/s in the rests is the figure. The learner, the verifier and
Redis have to be the processes that they were, and the audit at the end clean. The JSON has every event.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.machine import machine
from services.clock import now_s
from services.command.redis_server import RedisServer
from services.command.run_processes import write_settings
from services.command.supervisor import Supervisor
from services.run.audit import audit
from services.run.folder import RunFolder
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from tests.chaos.processes import ForkedService
from tests.chaos.stage import make_example, services_of, set_pace, settings_of, steps_taken

Kind = Literal["join", "leave", "kill", "suspend"]
CHANCES: dict[Kind, int] = {"join": 2, "leave": 1, "kill": 1, "suspend": 2}
"""As many come as go."""
USUAL, FEWEST, MOST = 4, 2, 6
"""Replicas at rest; those that are neither suspended nor leaving during the events."""
SUSPENDED_S = 2.0, 10.0
GROUPS_PER_STEP = 4
CALM_S = 120.0
"""In which all replicas have to hold the weights again after a block of events."""


@dataclass
class Event:
    """Something that happened to a replica."""

    at_s: float
    """Since the run began."""
    kind: Kind
    replica: str
    acting: int
    """Replicas that were neither suspended nor leaving afterwards."""
    steps: int
    """Taken by then."""
    suspended_s: float | None = None


@dataclass
class Phase:
    """A stretch of the run that counts."""

    kind: Literal["rest", "events"]
    seconds: float
    steps: int


@dataclass
class Record:
    """What came of a run."""

    events: list[Event] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    restarts: int = 0
    """Restarts of the learner, the verifier and Redis together."""
    audit: str = "not done"

    def rate(self, kind: Literal["rest", "events"]) -> float:
        """Steps a second in all phases of this kind."""
        of_kind = [phase for phase in self.phases if phase.kind == kind]
        return sum(phase.steps for phase in of_kind) / sum(phase.seconds for phase in of_kind)

    def to_dict(self) -> dict[str, Any]:
        own = {"rest_steps_per_s": self.rate("rest"), "events_steps_per_s": self.rate("events")}
        return asdict(self) | own | {"ratio": self.rate("events") / self.rate("rest")}


class Crowd:
    """The replicas, whom nobody starts again."""

    def __init__(self, folder: RunFolder, redis_url: str) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._number = 0
        self._all: dict[str, ForkedService] = {}
        self._leaving: set[str] = set()
        self._suspended_until_s: dict[str, float] = {}

    def acting(self) -> list[str]:
        """The names of those that are there, and neither suspended nor leaving."""
        away = self._leaving | self._suspended_until_s.keys()
        return [name for name, service in self._all.items() if service.is_alive and name not in away]

    def all_are_acting(self) -> bool:
        return not self._suspended_until_s

    def join(self) -> str:
        name = f"rollout-{self._number}"
        self._number += 1
        self._all |= services_of(self._folder, [name], lambda _: self._redis_url)
        self._all[name].start()
        return name

    def leave(self, name: str) -> None:
        """Ask it to end; it hands over or gives back what it has."""
        self._leaving.add(name)
        self._all[name].terminate()

    def kill(self, name: str) -> None:
        self._all[name].signal(signal.SIGKILL)

    def suspend(self, name: str, for_s: float) -> None:
        self._suspended_until_s[name] = now_s() + for_s
        self._all[name].signal(signal.SIGSTOP)

    def tidy(self) -> None:
        """Wake those up whose time is over, and forget the dead."""
        for name in [name for name, until_s in self._suspended_until_s.items() if until_s <= now_s()]:
            del self._suspended_until_s[name]
            self._all[name].signal(signal.SIGCONT)
        for name in [name for name, service in self._all.items() if not service.is_alive]:
            self._all.pop(name).clear_away()
            self._leaving.discard(name)

    def close(self) -> None:
        for service in self._all.values():
            service.clear_away()


def choose(rng: random.Random, acting: int) -> Kind:
    """What happens next. acting: replicas that are neither suspended nor leaving."""
    possible = [kind for kind in CHANCES if (acting < MOST if kind == "join" else acting > FEWEST)]
    return rng.choices(possible, [CHANCES[kind] for kind in possible])[0]


class Run:
    """One run, and what happens to its replicas."""

    def __init__(self, folder: Path, seed: int, group_s: float) -> None:
        self._rng = random.Random(seed)
        self._group_s = group_s
        overrides = ["name=events", "learner.steps=1000000", f"learner.groups_per_step={GROUPS_PER_STEP}"]
        self._config = settings_of(folder, [*overrides, f"rollout.replicas={USUAL}"])
        self._folder = RunFolder(self._config.folder)
        self._server = RedisServer(folder / "redis")
        self._connection = RedisConnection(self._server.url)
        self._membership = Membership(self._connection, self._config.name, self._config.deadlines.lease_s)
        self._others = services_of(self._folder, ["learner", "verifier"], lambda _: self._server.url)
        self._crowd = Crowd(self._folder, self._server.url)
        self._record = Record()
        self._begun_s = now_s()
        self._is_over = False

    def go(self, blocks: Sequence[int], every_s: float, rest_s: float) -> Record:
        """blocks: how many events each has. every_s: from one event to the next. rest_s: how long each rest is."""
        self._folder.services.mkdir(parents=True)
        write_settings(self._config, self._folder)
        set_pace(self._folder, self._group_s)
        story = self._story(blocks, every_s, rest_s)
        learner, verifier = self._others.values()
        try:
            with self._server:
                supervisor = Supervisor(
                    learner, [verifier], shutdown_s=self._config.deadlines.shutdown_s, redis=self._server
                )
                supervisor.run(lambda: self._is_over, lambda: next(story, None))
        finally:
            for service in self._others.values():
                service.clear_away()
            self._crowd.close()
            self._connection.close()
        return self._record

    def _story(self, blocks: Sequence[int], every_s: float, rest_s: float) -> Iterator[None]:
        """All that happens, piece by piece between two looks of the supervisor."""
        yield from self._calm()
        pids = self._pids()
        for count in blocks:
            yield from self._measured("rest", rest_s)
            end_s, steps, begun_s = now_s(), steps_taken(self._folder), now_s()
            for _ in range(count):
                self._happen()
                end_s += every_s
                yield from self._until(end_s)
            taken = steps_taken(self._folder) - steps
            self._record.phases.append(Phase("events", now_s() - begun_s, taken))
            yield from self._calm()
        yield from self._measured("rest", rest_s)
        self._record.restarts = sum(before != after for before, after in zip(pids, self._pids(), strict=True))
        found = audit(self._folder.path, self._connection)
        self._record.audit = "clean" if found.is_clean else f"not clean: {found.problems}"
        self._is_over = True

    def _happen(self) -> None:
        acting = self._crowd.acting()
        kind = choose(self._rng, len(acting))
        lasts_s = self._rng.uniform(*SUSPENDED_S) if kind == "suspend" else None
        name = self._crowd.join() if kind == "join" else self._rng.choice(acting)
        if kind == "leave":
            self._crowd.leave(name)
        elif kind == "kill":
            self._crowd.kill(name)
        elif lasts_s is not None:
            self._crowd.suspend(name, lasts_s)
        at_s, steps = now_s() - self._begun_s, steps_taken(self._folder)
        self._record.events.append(Event(at_s, kind, name, len(self._crowd.acting()), steps, lasts_s))

    def _calm(self) -> Iterator[None]:
        """Until the usual number of replicas is there, all with the same weights. They join and leave for that, uncounted."""
        end_s = now_s() + CALM_S
        while not (len(self._crowd.acting()) == USUAL and self._all_are_ready()):
            if now_s() > end_s:
                raise RuntimeError(
                    f"{USUAL} replicas did not come together within {CALM_S:.0f} s; see {self._folder.logs}"
                )
            self._crowd.tidy()
            acting = self._crowd.acting()
            if self._crowd.all_are_acting() and len(acting) < USUAL:
                self._crowd.join()
            elif len(acting) > USUAL:
                self._crowd.leave(acting[0])
            yield

    def _all_are_ready(self) -> bool:
        leases = self._membership.live()
        return leases.keys() == set(self._crowd.acting()) and all(
            lease.ready and lease.policy_version > 0 for lease in leases.values()
        )

    def _measured(self, kind: Literal["rest", "events"], seconds: float) -> Iterator[None]:
        begun_s, steps = now_s(), steps_taken(self._folder)
        yield from self._until(begun_s + seconds)
        self._record.phases.append(Phase(kind, now_s() - begun_s, steps_taken(self._folder) - steps))

    def _until(self, end_s: float) -> Iterator[None]:
        while now_s() < end_s:
            self._crowd.tidy()
            yield

    def _pids(self) -> list[int | None]:
        processes = [service.process for service in self._others.values()]
        return [*(process.pid if process is not None else None for process in processes), self._server.pid]


def table(record: Record) -> str:
    """Markdown."""
    kinds = Counter(event.kind for event in record.events)
    lines = ["| phase | seconds | steps | steps/s |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {phase.kind} | {phase.seconds:.0f} | {phase.steps} | {phase.steps / phase.seconds:.2f} |"
        for phase in record.phases
    ]
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    ratio = record.rate("events") / record.rate("rest")
    lines.append(f"\n{len(record.events)} events ({said}): {ratio:.2f} of the steps/s at rest; ")
    lines[-1] += f"{record.restarts} restarts of anything else; the audit is {record.audit}."
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--blocks", type=int, default=4, help="between which the run rests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-s", type=float, default=5.0, help="from one event to the next")
    parser.add_argument("--rest-s", type=float, default=40.0)
    parser.add_argument("--group-s", type=float, default=2.0, help="that an engine takes for a group")
    parser.add_argument("--out", type=Path, default=Path(".bench/events.json"))
    asked = parser.parse_args()
    make_example()
    blocks = [(asked.events + number) // asked.blocks for number in range(asked.blocks)]
    begun_unix_s = time.time()
    with tempfile.TemporaryDirectory(prefix="events-") as folder:
        record = Run(Path(folder), asked.seed, asked.group_s).go(blocks, asked.every_s, asked.rest_s)
    report = {
        "machine": machine(["torch"]),
        "asked": vars(asked) | {"out": str(asked.out)},
        "begun_unix_s": begun_unix_s,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report | record.to_dict(), indent=1), encoding="utf-8")
    print(table(record))
    return 0 if record.restarts == 0 and record.audit == "clean" else 1


if __name__ == "__main__":
    sys.exit(main())
