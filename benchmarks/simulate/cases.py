"""What is done to the fleet, and what is counted meanwhile."""

import asyncio
import gc
import logging
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.simulate.fleet import SimulatedReplica
from benchmarks.simulate.learner import SimulatedLearner
from benchmarks.simulate.network import Backend, Network
from benchmarks.simulate.server import Server, Traffic
from benchmarks.simulate.virtual import VirtualLoop, virtual_time
from services.config import RunConfig
from services.config.load import load

ROOT = Path(__file__).parents[2]
MIB = 2**20


@dataclass(frozen=True)
class Figures:
    """One fleet."""

    replicas: int
    backend: Backend
    form_s: float
    """From the first look to the first version confirmed: the meeting, and one sync."""
    sync_s: float
    """From the announcement of a version to the last confirmation, the median."""
    late_s: float
    """What the training loop waited for confirmations, of each second."""
    messages: float
    """Announcements and confirmations of a sync."""
    operations: float
    """Commands to Redis in a sync, with polling and leases as long as it lasts."""
    idle_operations_s: float
    """Commands a second while nothing is sent."""
    redis_mib: float
    """What goes through Redis in a sync."""
    redis_busy: float
    """Share of the server's one core that a sync takes."""
    learner_gib: float
    """What leaves the learner's network card for a sync."""
    all_gib: float
    unread: int
    """Confirmations that the server had dropped before the learner read them, in all."""
    left_behind: int
    """Members that did not confirm in time, of all syncs, though none had a fault."""
    suspended_s: float
    """From the announcement to the version confirmed without them, where one in a hundred stands still."""
    caught_up_s: float
    """From when they go on to when all hold the newest version."""
    real_s: float
    """What the simulation took."""
    kinds: dict[str, float] = field(default_factory=dict)
    """Commands to Redis in a sync by kind."""


def configured(folder: Path, backend: Backend, *overrides: str) -> RunConfig:
    """A run with the deadlines that users have."""
    own = [f"runs_folder={folder}", "learner.row_tokens=4096", f'weights={{type = "{backend}"}}', *overrides]
    config = load(ROOT / "examples/addition/addition.toml", [*(one for one in own if "nccl" not in one)])
    if backend == "nccl":  # asks for a GPU; the control plane is the same
        config = config.model_copy(update={"weights": config.weights.model_copy(update={"type": "nccl"})})
    return config


class Case:
    """A fleet of one size."""

    def __init__(self, folder: Path, replicas: int, backend: Backend, step_s: float, *overrides: str) -> None:
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self._began_s = time.monotonic()
        self.config = configured(folder, backend, *overrides)
        self.server = Server(self.loop)
        self.backend: Backend = backend
        self.network = Network(backend, lambda name: self.named[name].is_gone)
        self.learner = SimulatedLearner(self.loop, self.server, self.network, self.config, step_s)
        self.replicas = [
            SimulatedReplica(self.loop, self.server, self.network, self.config, number) for number in range(replicas)
        ]
        self.named = {one.replica_id: one for one in self.replicas}
        self.loop.write_off()

    def close(self) -> None:
        """End every task."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()
        asyncio.set_event_loop(None)
        gc.collect()

    def syncs(self, count: int) -> float:
        """Go on until that many more versions are confirmed; seconds."""
        wanted = len(self.learner.reports) + count
        return self.learner.until(lambda: len(self.learner.reports) >= wanted, 600.0 * count)

    def in_step(self) -> bool:
        """Whether every replica samples under the version that the learner has confirmed last, or a newer one."""
        confirmed = self.learner.group.confirmed_version
        return confirmed is not None and all(
            one.follower.ready.is_set() and one.engine.policy_version >= confirmed for one in self.replicas
        )

    def figures(self, syncs: int) -> Figures:
        """Everything, in order: the start, syncs in peace, one in a hundred suspended, and what it takes them to catch up."""
        learner, loop = self.learner, self.loop
        with virtual_time(loop), learner.at_work():
            loop.go_on(2.0)  # all have registered
            form_s = self.syncs(1)
            idle = self._idle()
            learner.begin_training()
            waited_s, began_s, moved = (
                learner.waited_s,
                loop.time(),
                (self.network.moved.by_learner, self.network.moved.in_all),
            )
            traffic = self._during(syncs)
            late_s = (learner.waited_s - waited_s) / (loop.time() - began_s)
            by_learner, in_all = (
                (self.network.moved.by_learner - moved[0]) / syncs,
                (self.network.moved.in_all - moved[1]) / syncs,
            )
            peace = learner.reports[-syncs:]
            left_behind = sum(len(self.replicas) - report.replicas for report in peace)
            suspended_s, caught_up_s = self._suspend()
        return Figures(
            replicas=len(self.replicas),
            backend=self.backend,
            form_s=form_s,
            sync_s=statistics.median(report.seconds for report in peace),
            late_s=late_s,
            messages=traffic.operations["append"] / syncs,
            operations=sum(traffic.operations.values()) / syncs,
            idle_operations_s=idle,
            redis_mib=(traffic.bytes_in + traffic.bytes_out) / MIB / syncs,
            redis_busy=traffic.busy_s / sum(report.seconds for report in peace),
            learner_gib=by_learner / 2**30,
            all_gib=in_all / 2**30,
            unread=self.server.traffic.unread,
            left_behind=left_behind,
            suspended_s=suspended_s,
            caught_up_s=caught_up_s,
            real_s=time.monotonic() - self._began_s,
            kinds={kind: count / syncs for kind, count in traffic.operations.most_common()},
        )

    def _idle(self) -> float:
        """Commands a second, over ten seconds in which nothing is sent."""
        before, began_s = self.server.traffic.operations.total(), self.loop.time()
        while self.loop.time() - began_s < 10.0:
            self.learner.look()
        return (self.server.traffic.operations.total() - before) / (self.loop.time() - began_s)

    def _during(self, syncs: int) -> Traffic:
        """What the server is asked for while versions are on their way, of that many."""
        found = Traffic()
        for _ in range(syncs):
            while self.learner.version == self.learner.group.confirmed_version:
                self.loop.go_on(0.1)
            before, busy_s = Counter(self.server.traffic.operations), self.server.traffic.busy_s
            came, went = self.server.traffic.bytes_in, self.server.traffic.bytes_out
            self.syncs(1)
            found.operations += self.server.traffic.operations - before
            found.busy_s += self.server.traffic.busy_s - busy_s
            found.bytes_in += self.server.traffic.bytes_in - came
            found.bytes_out += self.server.traffic.bytes_out - went
        return found

    def _suspend(self) -> tuple[float, float]:
        """One in a hundred, and at least one where there are two, stands still until the others have a version."""
        chosen = self.replicas[: max(1, len(self.replicas) // 100)] if len(self.replicas) > 1 else []
        while chosen and self.learner.version == self.learner.group.confirmed_version:
            self.loop.go_on(0.1)
        for one in chosen:
            one.suspend()
        if not chosen:
            return float("nan"), float("nan")
        suspended_s = self.syncs(1)
        for one in chosen:
            one.go_on()
        return suspended_s, self.learner.until(self.in_step, 600.0)


def measured(
    folder: Path, replicas: int, backend: Backend, *overrides: str, syncs: int = 3, step_s: float = 20.0
) -> Figures:
    """The figures of one fleet."""
    ours = logging.getLogger("ratchet")
    level = ours.level
    ours.setLevel(logging.CRITICAL)
    case = Case(folder, replicas, backend, step_s, *overrides)
    try:
        return case.figures(syncs)
    finally:
        case.close()
        ours.setLevel(level)
