"""How long the learner stands still when replicas are suspended or die, or Redis loses its data.

    python -m benchmarks.weight_faults [--mib 64] [--step-s 0.25] [--suspended-s 30] [--lease-s 5] [--out FILE]

Real: Redis, the replicas' processes with their streams, leases and followers, the receivers over gloo, the publisher, the weight
server. Paced: an engine takes 0.05 s for a group, a step --step-s. A step takes the groups that admission has let out, as the
training loop does, so it stands still where weights or groups do not come. Standing still is the longest time between two steps
after the fault, without the median before it. A replica that is suspended is cut off as well: it neither renews its lease nor
receives. After FLUSHALL the groups in flight are gone, and this program issues others at once.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from learner.intake.admission import AdmissionLimits, admissible_groups
from learner.publish.kept_buckets import BucketPool
from learner.publish.publisher import WeightPublisher
from learner.publish.snapshot import Snapshot
from learner.publish.sync_report import SyncReport
from learner.publish.weight_server import WeightServer
from rollout.engine import SwapReport
from rollout.replica import Replica
from rollout.weights.receiver import WeightReceiver
from services.clock import Deadline
from services.command.redis_server import RedisServer
from services.config import RunConfig
from services.config.load import load
from services.errors import WeightSyncError
from services.streams.names import PROMPTS, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.weights.meeting import RendezvousStore
from services.weights.membership import Membership
from services.weights.process_group import ProcessGroupChannel
from services.weights.side_stream import Mark, SideStream
from services.wire.codec import Array, encode
from services.wire.prompt import Prompt
from services.wire.weights import Probe, Rendezvous, WeightManifest, WeightOffer
from tests.fakes.engine import FakeEngine
from tests.forking import forking

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
GROUPS_PER_STEP = 4
MAX_LAG = 2
DIES = "dies-at-its-next-swap"
"""A file of this name, and a replica's, in the run's folder makes that replica end at its next swap."""
LONGEST_S = 150.0


class PacedEngine(FakeEngine):
    """Samples as the fake does, and receives weights as an engine's worker does."""

    def __init__(self, dies: Path) -> None:
        super().__init__(seconds_per_group=0.05)
        self._receiver = WeightReceiver(CPU)
        self._dies = dies

    async def join(self, rendezvous: Rendezvous, replica_id: str) -> None:
        self._receiver.join(rendezvous, rendezvous.first_ranks[replica_id])
        await self._until_ready()

    async def stage_and_swap(
        self, manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
    ) -> SwapReport:
        begun_s = time.perf_counter()
        self._receiver.stage(manifest, deadline.remaining_s(), offer)
        await self._until_ready()
        if self._dies.exists():
            self._dies.unlink()
            os._exit(1)
        self._receiver.take(manifest.policy_version)
        self._receiver.give_back()
        self.policy_version = manifest.policy_version
        self.swapped = [manifest]
        transfer_s = time.perf_counter() - begun_s
        return SwapReport(manifest.policy_version, transfer_s, 0.0, self.running_sequences, "reload")

    async def _until_ready(self) -> None:
        while (progress := self._receiver.progress()).state == "busy":
            await asyncio.sleep(0.002)
        if progress.state != "ready":
            raise WeightSyncError(progress.fault)


def settings(name: str, lease_s: float) -> RunConfig:
    overrides = [
        f"name={name}",
        f"learner.groups_per_step={GROUPS_PER_STEP}",
        f"learner.max_lag={MAX_LAG}",
        f"deadlines.lease_s={lease_s}",
    ]
    return load(ROOT / "examples/addition/addition.toml", overrides)


def be_replica(name: str, lease_s: float, url: str, replica_id: str, folder: Path) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(filename=folder / f"{replica_id}.log", level=logging.INFO)
    config = settings(name, lease_s)

    async def serve() -> None:
        engine = PacedEngine(folder / f"{replica_id}-{DIES}")
        await Replica(config, engine, RedisConnection(url), replica_id=replica_id).run(asyncio.Event())

    asyncio.run(serve())


class Fleet:
    """The processes of the replicas. They are forked from one that has everything imported, so that a start is quick."""

    def __init__(self, url: str, name: str, lease_s: float, folder: Path) -> None:
        self._url = url
        self._name = name
        self._lease_s = lease_s
        self.folder = folder
        self._processes: dict[str, Any] = {}

    def start(self, replica_id: str) -> None:
        arguments = (self._name, self._lease_s, self._url, replica_id, self.folder)
        self._processes[replica_id] = forking().Process(target=be_replica, args=arguments, daemon=True)
        self._processes[replica_id].start()

    def signal(self, replica_id: str, number: int) -> None:
        os.kill(self._processes[replica_id].pid, number)

    def await_end(self, replica_id: str) -> None:
        self._processes[replica_id].join(LONGEST_S)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()


class PacedLearner:
    """Steps as the training loop does, in a thread, with weights of its own number."""

    def __init__(self, config: RunConfig, connection: RedisConnection, mib: int, step_s: float) -> None:
        self._step_s = step_s
        self._prompts = RedisStream(connection, config.name, PROMPTS, "learner", 1e8)
        self._issue_log = RedisIssueLog(connection, self._prompts)
        self._trajectories = RedisStream(connection, config.name, TRAJECTORIES, "learner", 1e8)
        self._pool = BucketPool([("weight", torch.empty(mib * 2**18, device="meta"))], 16, CPU)
        self._store = RendezvousStore("127.0.0.1")
        self.stopping = threading.Event()
        self.steps_s: list[float] = []
        self.syncs: list[tuple[float, SyncReport]] = []
        self.outstanding = 0
        self.policy_version = 0
        self.publisher = WeightPublisher(
            config,
            membership=Membership(connection, config.name, config.deadlines.lease_s),
            channel=ProcessGroupChannel(self._store),
            address=("127.0.0.1", self._store.port),
            server=WeightServer(None, 0, "127.0.0.1"),
            on_sync=lambda report: self.syncs.append((time.monotonic(), report)),
            on_lost=self._prompts.release_of,
            stopping=self.stopping.is_set,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Returns once the thread and the publisher have ended."""
        self.stopping.set()
        self._thread.join()
        self.publisher.close()

    def _run(self) -> None:
        self._publish()
        while not self.stopping.is_set():
            if not self._gather():
                return
            time.sleep(self._step_s)
            self.policy_version += 1
            self._publish()
            self.steps_s.append(time.monotonic())

    def _publish(self) -> None:
        kept, filling = self._pool.take()
        kept.named["weight"].fill_(float(self.policy_version))
        probes = (Probe((1, 2, 3), (-1.0, -2.0)),)
        self.publisher.publish(
            Snapshot(self.policy_version, kept, filling, probes, copied=Mark(CPU), side=SideStream(CPU))
        )

    def _gather(self) -> bool:
        gathered = 0
        while gathered < GROUPS_PER_STEP:
            if self.publisher.should_stop():
                return False
            confirmed = self.publisher.confirmed_version
            if confirmed is not None:
                limits = AdmissionLimits(GROUPS_PER_STEP, MAX_LAG)
                for _ in range(admissible_groups(limits, self.outstanding, self.policy_version - confirmed)):
                    self._issue_log.issue_again(encode(prompt()))
                    self.outstanding += 1
            claims = self._trajectories.claim(GROUPS_PER_STEP - gathered, 0.05)
            self._trajectories.acknowledge(claims)
            gathered += len(claims)
            self.outstanding = max(0, self.outstanding - len(claims))
        return True


def prompt() -> Prompt:
    return Prompt(
        group_id="train-0",
        sequence_number=0,
        purpose="train",
        row=0,
        token_ids=Array.of([1, 2, 3], "<i4"),
        group_size=2,
        temperature=1.0,
        max_tokens=4,
        stop_token_ids=(),
        stop=(),
        keep_special_tokens=False,
        seed=0,
        grader="exact",
        reference="",
        options={},
    )


class Bench:
    """A run of two replicas, to which faults are done one after the other."""

    def __init__(self, folder: Path, mib: int, step_s: float, lease_s: float) -> None:
        self.server = RedisServer(folder / "redis")
        self.server.start(within_s=20)
        name = "weight-faults"
        self.connection = RedisConnection(self.server.url)
        self.fleet = Fleet(self.server.url, name, lease_s, folder)
        for number in range(2):
            self.fleet.start(f"rollout-{number}")
        self.learner = PacedLearner(settings(name, lease_s), self.connection, mib, step_s)

    def close(self) -> None:
        self.learner.close()
        self.fleet.close()
        self.connection.close()
        self.server.stop(within_s=10)

    def until_both_are_in(self, since_s: float) -> float:
        """Returns the seconds from then until a broadcast is confirmed by both."""
        end_s = time.monotonic() + LONGEST_S
        while time.monotonic() < end_s:
            self.learner.publisher.should_stop()
            whole = [at_s for at_s, report in list(self.learner.syncs) if at_s > since_s and report.replicas == 2]
            if whole:
                return whole[0] - since_s
            time.sleep(0.05)
        raise WeightSyncError("the two replicas did not come together; see their logs")

    def suffer(self, fault: Callable[[], None], mend: Callable[[], None], mended_after_s: float) -> dict[str, float]:
        """Do a fault, mend it later, and measure."""
        begun_s = time.monotonic()
        fault()
        while time.monotonic() - begun_s < mended_after_s:
            self.learner.publisher.should_stop()
            time.sleep(0.05)
        mend()
        mended_s = time.monotonic()
        back_s = self.until_both_are_in(mended_s)
        ends = list(self.learner.steps_s)
        gaps = [(end, end - start) for start, end in pairwise(ends)]
        usual = statistics.median(gap for end, gap in gaps if end < begun_s)
        after = [gap for end, gap in gaps if end >= begun_s] + [time.monotonic() - ends[-1]]
        steps = sum(1 for end in ends if begun_s <= end <= mended_s)
        return {
            "stood_still_s": max(0.0, max(after) - usual),
            "usual_step_s": usual,
            "steps_meanwhile": float(steps),
            "back_after_s": back_s,
        }


def report(mib: int, step_s: float, suspended_s: float, lease_s: float, folder: Path) -> dict[str, Any]:
    """Do all faults. suspended_s: how long a replica is suspended. lease_s: deadlines.lease_s; one that died is started again
    after 1.6 of them."""
    bench = Bench(folder, mib, step_s, lease_s)
    fleet, learner = bench.fleet, bench.learner
    rows: dict[str, dict[str, float]] = {}

    def settle() -> None:
        bench.until_both_are_in(time.monotonic())
        time.sleep(12 * step_s)

    def flush() -> None:
        bench.connection.execute("FLUSHALL")
        learner.outstanding = 0

    def die_at_swap() -> None:
        (folder / f"rollout-1-{DIES}").touch()
        fleet.await_end("rollout-1")

    def nothing() -> None: ...

    def start_again() -> None:
        fleet.await_end("rollout-1")
        fleet.start("rollout-1")

    try:
        settle()
        rows["a replica is suspended"] = bench.suffer(
            lambda: fleet.signal("rollout-1", signal.SIGSTOP),
            lambda: fleet.signal("rollout-1", signal.SIGCONT),
            suspended_s,
        )
        settle()
        rows["a replica is killed"] = bench.suffer(
            lambda: fleet.signal("rollout-1", signal.SIGKILL), start_again, 1.6 * lease_s
        )
        settle()
        rows["a replica dies at a swap"] = bench.suffer(die_at_swap, start_again, 1.6 * lease_s)
        settle()
        rows["FLUSHALL"] = bench.suffer(flush, nothing, 0.0)
        begun_s = time.monotonic()
        fleet.signal("rollout-1", signal.SIGSTOP)
        time.sleep(4 * step_s)
        learner.close()
        rows["Ctrl-C while a replica is suspended"] = {"stopped_after_s": time.monotonic() - begun_s - 4 * step_s}
    finally:
        bench.close()
    return {"machine": machine(["torch"]), "mib": mib, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--step-s", type=float, default=0.25)
    parser.add_argument("--suspended-s", type=float, default=30.0)
    parser.add_argument("--lease-s", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=Path(".bench/weight_faults.json"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = report(asked.mib, asked.step_s, asked.suspended_s, asked.lease_s, Path(folder))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found["machine"]))
    for name, row in found["rows"].items():
        print(f"| {name} | " + " | ".join(f"{key} {value:.3g}" for key, value in row.items()) + " |")


if __name__ == "__main__":
    main()
