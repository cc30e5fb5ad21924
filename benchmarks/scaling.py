"""What each further replica and each further learner rank costs, and where more of them stop helping.

    python -m benchmarks.scaling [--replicas 1 2 4 8] [--ranks 2 4] [--seconds 20] [--group-s 1.0] [--out .bench/scaling.json]

Real: Redis, the verifier with its grader process, the replicas' processes with claims, leases and receivers, the learner
(DeepSpeed, the model of examples/addition) with its intake, publisher and weights over gloo. Paced: an engine sleeps for
--group-s while it holds a group, and holds eight. So a replica gives at most eight groups and one ahead in that time and costs no
core for it: what its process takes is overhead.

The first rows have one learner rank and more and more replicas, and one replica at four times the pace and at a quarter of it;
the last have two replicas and more ranks. Columns: groups and steps a second; how idle learner and engines were; milliseconds of
processor a second of each process. Below: what a replica's process takes for a group, for a sync and for a second of being there,
by least squares over all rows; and what `ratchet status` says limits the largest fleet. Processes share the cores: the load is in
the JSON.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import learner.__main__
import rollout.__main__
import verifier.__main__
from benchmarks.machine import machine
from benchmarks.weight_faults import PacedEngine
from services import entry
from services.command.balance import Admitted, Idle, balance, idle_between
from services.command.redis_server import RedisServer
from services.command.run_processes import write_settings
from services.command.scrape import Scrape, grown, scrape
from services.config import RunConfig
from services.config.load import load
from services.entry import REDIS_URL_VARIABLE
from services.run.addresses import addresses
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory, VersionSpan
from tests.fakes.engine import VOCABULARY
from tests.forking import forking

ROOT = Path(__file__).parents[1]
GROUPS_HELD, GROUP_SIZE, TOKENS = 8, 8, 4
WARM_STEPS = 3
START_S = 180.0
TICKS = os.sysconf("SC_CLK_TCK")


class SleepingEngine(PacedEngine):
    """Holds a group for a while, and gives answers that were made before: half of the responses are right."""

    def __init__(self, group_s: float) -> None:
        super().__init__(Path("/nonexistent"))
        self.seconds_per_group = group_s
        draw = np.random.default_rng(0)
        self._token_ids = [Array.of(draw.integers(0, VOCABULARY, TOKENS), "<i4") for _ in range(GROUP_SIZE)]
        self._logp = Array.of([-float(np.log(VOCABULARY))] * TOKENS, "<f4")

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        self.running_sequences += prompt.group_size
        version = self.policy_version
        try:
            await asyncio.sleep(self.seconds_per_group)
        finally:
            self.running_sequences -= prompt.group_size
        spans = (VersionSpan(version, 0, TOKENS),)
        return tuple(
            Trajectory(
                token_ids=self._token_ids[index % GROUP_SIZE],
                behavior_logp=self._logp,
                spans=spans,
                finish_reason="stop",
                text=prompt.reference if index % 2 else "?",
            )
            for index in range(prompt.group_size)
        )


def settings(folder: Path, replicas: int, ranks: int) -> RunConfig:
    """A run that goes on for as long as it is looked at."""
    return load(
        ROOT / "examples/addition/addition.toml",
        [
            f"name=scaling-{replicas}-{ranks}",
            f"runs_folder={folder}",
            "learner.steps=1000000",
            "learner.groups_per_step=32",
            "learner.max_lag=2",
            f"learner.ranks={ranks}",
            "learner.cpu_threads=1",
            "learner.checkpoint={every_steps = 1000000, keep = 1}",
            f"rollout.replicas={replicas}",
            f"rollout.max_concurrent_sequences={GROUPS_HELD * GROUP_SIZE}",
            f"rollout.sampling.group_size={GROUP_SIZE}",
            "verifier.processes=1",
            "evaluation.every_steps=1000000",
            "evaluation.max_prompts=1",
            "weights.max_mismatch_nats=1e6",
            "weights.max_gap_nats=1e6",
        ],
    )


def be(name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str], group_s: float) -> None:
    """Be this service, in a process forked from one that has everything imported. It never returns."""
    os.setsid()  # what it starts belongs to its session, by which its processor time is found
    os.environ.update(environment)
    with log.open("ab") as lines:
        os.dup2(lines.fileno(), sys.stdout.fileno())
        os.dup2(lines.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    sys.argv = [name, *arguments]
    if name.startswith("learner"):
        entry.end(learner.__main__.main)
    if name.startswith("rollout"):
        entry.end(lambda: rollout.__main__.main(lambda _: SleepingEngine(group_s)))
    entry.end(verifier.__main__.main)


class Services:
    """The processes of one run, by name."""

    def __init__(self, config: RunConfig, redis_url: str, group_s: float) -> None:
        self.folder = RunFolder(config.folder)
        self.folder.services.mkdir(parents=True)
        self.folder.logs.mkdir(parents=True, exist_ok=True)
        write_settings(config, self.folder)
        common = [str(self.folder.settings), "--services-folder", str(self.folder.services)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = config.learner.ranks
        told = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if ranks > 1 else {}
        wanted: dict[str, tuple[list[str], dict[str, str]]] = {"verifier": (common, {})}
        for number in range(config.rollout.replica_count):
            name = f"rollout-{number}"
            wanted[name] = ([*common, "--replica-id", name], {})
        for rank in range(ranks):
            own = {**told, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
            wanted[f"learner-{rank}"] = (common, own)
        self.processes: dict[str, Any] = {}
        for name, (arguments, more) in wanted.items():
            environment = {REDIS_URL_VARIABLE: redis_url, "OMP_NUM_THREADS": "1", **more}
            self.processes[name] = forking().Process(
                target=be, args=(name, arguments, self.folder.logs / f"{name}.log", environment, group_s)
            )
            self.processes[name].start()

    def check(self) -> None:
        """Raises SystemExit with the end of its log when a service has ended."""
        for name, process in self.processes.items():
            if process.exitcode is not None:
                said = (self.folder.logs / f"{name}.log").read_text(encoding="utf-8")[-3000:]
                raise SystemExit(f"{name} ended with {process.exitcode}:\n{said}")

    def steps(self) -> int:
        return len(read_json_lines(self.folder.steps)) if self.folder.steps.exists() else 0

    def close(self) -> None:
        for process in self.processes.values():
            if process.pid is not None:
                for pid in in_session(process.pid):
                    os.kill(pid, signal.SIGKILL)
            process.join()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def in_session(leader: int) -> list[int]:
    """Every process of the session that this one began."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if (fields := _stat(pid)) and int(fields[3]) == leader]


def processor_s(pids: Sequence[int]) -> float:
    """Seconds of processor that these processes, and children of theirs that have ended, have used."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / TICKS


@dataclass(frozen=True)
class Look:
    """Counts at one time."""

    at_s: float
    processor_s: dict[str, float]
    steps: int
    said: dict[str, Scrape | None]


@dataclass(frozen=True)
class Row:
    """What was seen of one fleet."""

    replicas: int
    ranks: int
    group_s: float
    groups_per_s: float
    steps_per_s: float
    idle: Idle
    processor_ms_per_s: dict[str, float]
    """By process; the mean of the replicas, the sum of the ranks."""
    says: str
    """What limits, in the words of `ratchet status`."""


def look(services: Services, redis_pid: int) -> Look:
    used = {name: processor_s(in_session(process.pid)) for name, process in services.processes.items()}
    used["redis"] = processor_s([redis_pid])
    return Look(time.monotonic(), used, services.steps(), scrape(addresses(services.folder.services)))


def measured(folder: Path, *, replicas: int, ranks: int, group_s: float, seconds: float) -> Row:
    """Start a fleet, let it come to a steady state, and look at it twice. Raises SystemExit when a service ends."""
    config = settings(folder, replicas, ranks)
    with ExitStack() as stack:
        server = RedisServer(config.folder / "redis")
        stack.enter_context(server)
        server.start()
        assert server.pid is not None
        services = Services(config, server.url, group_s)
        stack.callback(services.close)
        give_up_s = time.monotonic() + START_S
        while services.steps() < WARM_STEPS:
            services.check()
            if time.monotonic() > give_up_s:
                raise SystemExit(f"no step {WARM_STEPS} within {START_S:.0f} s; the logs are in {services.folder.logs}")
            time.sleep(0.1)
        time.sleep(1.0)
        before = look(services, server.pid)
        time.sleep(seconds)
        services.check()
        after = look(services, server.pid)
    return row_of(before, after, replicas=replicas, ranks=ranks, group_s=group_s, config=config)


def row_of(before: Look, after: Look, *, replicas: int, ranks: int, group_s: float, config: RunConfig) -> Row:
    """The rates between two looks. Raises SystemExit when a side did not say how idle it was."""
    seconds = after.at_s - before.at_s
    idle = idle_between(before.said, after.said)
    if idle is None:
        raise SystemExit("a service did not answer on /metrics")
    groups = sum(
        grown("ratchet_rollout_groups_total", before.said.get(name), said, outcome="handed_over")
        for name, said in after.said.items()
        if name.startswith("rollout") and said is not None
    )
    ms = {name: 1000 * (used - before.processor_s[name]) / seconds for name, used in after.processor_s.items()}
    own = [value for name, value in ms.items() if name.startswith("rollout")]
    return Row(
        replicas=replicas,
        ranks=ranks,
        group_s=group_s,
        groups_per_s=groups / seconds,
        steps_per_s=(after.steps - before.steps) / seconds,
        idle=idle,
        processor_ms_per_s={
            "replica": sum(own) / len(own),
            "verifier": ms["verifier"],
            "redis": ms["redis"],
            "learner": sum(value for name, value in ms.items() if name.startswith("learner")),
        },
        says=balance(idle, Admitted(config.learner.groups_per_step, config.learner.max_lag)),
    )


def overhead(rows: Sequence[Row]) -> dict[str, float]:
    """Milliseconds of processor that a replica's process takes for each group, each sync and each second, by least squares, none
    below 0. Each step has one sync."""
    facts = np.array([[row.groups_per_s / row.replicas, row.steps_per_s, 1.0] for row in rows])
    seen = np.array([row.processor_ms_per_s["replica"] for row in rows])
    best = (np.inf, np.zeros(3))
    for used in itertools.product((False, True), repeat=3):
        cost = np.zeros(3)
        cost[list(used)] = np.linalg.lstsq(facts[:, list(used)], seen, rcond=None)[0]
        if (cost >= 0).all():
            best = min(best, (float(np.square(facts @ cost - seen).sum()), cost), key=lambda one: one[0])
    return dict(zip(("group", "sync", "second"), map(float, best[1]), strict=True))


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| replicas | ranks | a group takes, s | groups/s | to one replica | steps/s | idle: learner | engines "
        "| ms/s: a replica | verifier | redis | learner |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    one = rows[0].groups_per_s / rows[0].replicas
    for row in rows:
        used = " | ".join(f"{row.processor_ms_per_s[name]:.0f}" for name in ("replica", "verifier", "redis", "learner"))
        lines.append(
            f"| {row.replicas} | {row.ranks} | {row.group_s:g} | {row.groups_per_s:.1f} | {row.groups_per_s / one:.2f} | "
            f"{row.steps_per_s:.2f} | {row.idle.learner:.2f} | {row.idle.engines:.2f} | {used} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4], help="more learner ranks, with two replicas")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each fleet is looked at")
    parser.add_argument("--group-s", type=float, default=1.0, help="how long an engine holds a group")
    parser.add_argument("--out", type=Path, default=Path(".bench/scaling.json"))
    asked = parser.parse_args()
    fleets = [(replicas, 1, asked.group_s) for replicas in asked.replicas]
    fleets += [(1, 1, asked.group_s / 4), (1, 1, 4 * asked.group_s)]  # so that groups are told from seconds
    fleets += [(2, ranks, asked.group_s) for ranks in asked.ranks]
    rows, loads = [], []
    for number, (replicas, ranks, group_s) in enumerate(fleets):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(
                measured(
                    Path(folder) / str(number), replicas=replicas, ranks=ranks, group_s=group_s, seconds=asked.seconds
                )
            )
        loads.append(round(os.getloadavg()[0], 1))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    costs = overhead(rows)
    print(f"\n{table(rows)}\n\na replica: " + ", ".join(f"{ms:.2f} ms a {what}" for what, ms in costs.items()))
    largest = max(rows[: len(asked.replicas)], key=lambda row: row.replicas)
    print(f"{largest.replicas} replicas: {largest.says}")
    report = {
        "rows": [asdict(row) for row in rows],
        "replica_ms": costs,
        "loads": loads,
        "machine": machine(["torch", "deepspeed"]),
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
