"""One training run of real processes, and the faults done to it: it has to come to its last step, and its books have to add up.

Real: the learner (DeepSpeed, the model of examples/addition), the verifier with its grader processes, Redis, the replicas with
their streams, leases and receivers, the supervisor. Not real: the engine, which samples without a model at a pace of the
harness's choice. So the accounts and the steps are looked at, and not accuracy.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from services.clock import now_s, sleep
from services.command import supervisor
from services.command.redis_server import RedisServer
from services.command.run_processes import write_settings
from services.command.supervisor import Supervisor
from services.config import RunConfig
from services.config.load import load
from services.entry import DONE, REDIS_URL_VARIABLE
from services.errors import RatchetError
from services.run.audit import audit
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.summary import newest
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from tests.chaos.faults import BY_HAND, SERVICES, Fault
from tests.chaos.instants import PACE
from tests.chaos.processes import ForkedService
from tests.chaos.wires import Wire, Wires

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/addition"
REPLICAS = 2
GROUPS_PER_STEP = 4
FIRST_STEPS = 8
GROUP_S = 1.5
"""How long a group takes while faults are done: a step then takes about half a second."""
START_S = 120.0
RECOVERY_S = 120.0
"""A run that has taken no step by then, or whose books do not add up, has not recovered."""
INSTANT_S = 30.0
SOUND_S = 30.0
HAND_STARTS = 4


class NotRecovered(Exception):
    """The run did not come back by itself."""


@dataclass
class Suffered:
    """A fault that was done, and what came of it."""

    kind: str
    detail: str
    happened: bool = True
    recovery_s: float | None = None
    """Seconds from its end, or from the fault itself where it does not last, to the second learner step after it."""
    whole_s: float | None = None
    """The same until both replicas hold the weights again."""
    audit: str = "not done"
    by_hand: str | None = None
    """Why `ratchet up` ended, if somebody had to call it again."""

    @property
    def is_good(self) -> bool:
        """Whether all is well after it, without anybody's help but where that is the design."""
        helped = self.by_hand is not None and self.kind not in BY_HAND
        return not self.happened or (self.audit == "clean" and not helped)


@dataclass
class Outcome:
    """A run and its faults."""

    seed: int
    steps: int
    faults: list[Suffered] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is wrong with the run as a whole, in sentences."""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.problems and all(fault.is_good for fault in self.faults)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"good": self.is_good}


def config_of(folder: Path, steps: int, scoring: str, checkpoint_steps: int) -> RunConfig:
    """The settings of a run: deadlines as they come, but for those that say how soon claims and leases move on."""
    return load(
        EXAMPLE / "addition.toml",
        [
            "name=chaos",
            f"runs_folder={folder}",
            f"learner.steps={steps}",
            f"learner.groups_per_step={GROUPS_PER_STEP}",
            f"learner.checkpoint={{every_steps = {checkpoint_steps}, keep = 3}}",
            f"rollout.replicas={REPLICAS}",
            "rollout.max_concurrent_sequences=64",
            f"verifier.url={scoring}",
            "verifier.processes=1",
            "evaluation.every_steps=1000",
            "evaluation.max_prompts=4",
            "weights.max_mismatch_nats=1e6",
            "weights.max_gap_nats=1e6",
            "deadlines.lease_s=3.0",
            "deadlines.reclaim_idle_s=6.0",
            "deadlines.shutdown_s=20.0",
        ],
    )


class Storm:
    """A run to which faults are done one after the other, in the order given."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        faults: Sequence[Fault],
        *,
        disk: Path | None = None,
        sabotage: str | None = None,
        checkpoint_steps: int = 5,
        steps_per_fault: int = 16,
    ) -> None:
        """folder: of the run folder. seed: of the pauses between the faults. disk: a small one that the folder is on. sabotage:
        a name in entries.SABOTAGES. steps_per_fault: a run that has taken them has no more faults done to it."""
        self.disk = disk
        self._rng = random.Random(seed)
        self._faults = faults
        self._steps = FIRST_STEPS + steps_per_fault * len(faults)
        self._server = RedisServer(folder / "chaos" / "redis")
        self._wires = Wires()
        parts = urlsplit(self._server.url)
        self.wires = {name: self._wires.to_socket(unquote(parts.path)) for name in SERVICES}
        self.scoring: Wire = self._wires.to(self._to_scoring)
        scoring = f"http://127.0.0.1:{self.scoring.port}"
        self._config = config_of(folder, self._steps, scoring, checkpoint_steps)
        self.name = self._config.name
        self.folder = RunFolder(self._config.folder)
        self._outcome = Outcome(seed, self._steps)
        self._mend: Callable[[], None] | None = None
        self._connection = RedisConnection(self._server.url, deadline_s=10.0)
        self._membership = Membership(self._connection, self.name, self._config.deadlines.lease_s)
        settings = [str(self.folder.settings), "--services-folder", str(self.folder.services)]
        self.services = {
            name: ForkedService(
                name,
                [*settings, *(["--replica-id", name] if name.startswith("rollout") else [])],
                self.folder.logs / f"{name}.log",
                {REDIS_URL_VARIABLE: f"redis://:{parts.password}@127.0.0.1:{self.wires[name].port}/0"},
                folder=self.folder.path,
                sabotage=sabotage if name == "learner" else None,
            )
            for name in SERVICES
        }

    def run(self) -> Outcome:
        """Run to the last step; what came of it."""
        begun_s = now_s()
        self.folder.services.mkdir(parents=True)
        write_settings(self._config, self.folder)
        self._pace(GROUP_S)
        try:
            with self._server:
                self._see_through()
                if not self._outcome.problems:
                    self._check_end()
        finally:
            for service in self.services.values():
                service.clear_away()
            self._connection.close()
            self._wires.close()
        self._outcome.seconds = now_s() - begun_s
        return self._outcome

    def redis(self) -> RedisConnection:
        return self._connection

    def signal_redis(self, number: signal.Signals) -> None:
        if self._server.pid is not None:
            os.kill(self._server.pid, number)

    def _see_through(self) -> None:
        """Supervise the run until it is done. Where that ends with an error, somebody mends what is wrong and calls again."""
        story = self._story()
        supervisor.RESTARTS = 10**6  # faults come a hundred times as often as anywhere
        learner, *feeding = self.services.values()
        for _ in range(HAND_STARTS):
            again = Supervisor(
                learner,
                feeding,
                shutdown_s=self._config.deadlines.shutdown_s,
                redis=self._server,
                progress=lambda: self.folder.steps.stat().st_size if self.folder.steps.exists() else 0,
            )
            try:
                code = again.run(lambda: False, lambda: next(story, None))
            except NotRecovered as fault:
                self._outcome.problems.append(str(fault))
                return
            except RatchetError as fault:
                if not self._outcome.faults:
                    self._outcome.problems.append(f"it ended before the first fault: {fault}")
                    return
                self._outcome.faults[-1].by_hand = str(fault)
                while self._mend is not None:
                    next(story, None)
                    sleep(0.1)
                continue
            if code != DONE:
                self._outcome.problems.append(f"the learner ended with code {code}")
            return
        self._outcome.problems.append(f"it was called {HAND_STARTS} times, and ended each time")

    def _story(self) -> Iterator[None]:
        """The faults, piece by piece between two looks of the supervisor."""
        yield from self._until(lambda: self._rows() >= 3 and self._is_whole(), START_S, "did not begin")
        for fault in self._faults:
            yield from self._pause(self._rng.uniform(0.0, 1.5))
            if self._rows() and self._last_step() >= self._steps - 2:
                break
            yield from self._suffer(fault)
        self._pace(0.0)

    def _suffer(self, fault: Fault) -> Iterator[None]:
        suffered = Suffered(fault.kind, fault.detail)
        self._outcome.faults.append(suffered)
        self._mend = lambda: fault.mend(self)
        fault.do(self)
        end_s = now_s() + INSTANT_S
        while not fault.has_happened(self) and now_s() < end_s:
            yield
        suffered.happened = fault.has_happened(self)
        yield from self._pause(fault.lasts_s)
        self._mend()
        self._mend = None
        mended_s, before = now_s(), self._rows()
        what = f"did not recover from: {fault.kind} ({fault.detail})"
        yield from self._until(lambda: self._rows() >= before + 2, RECOVERY_S, f"{what}: no step")
        suffered.recovery_s = now_s() - mended_s
        first = read_json_lines(self.folder.steps)[before]["step"]
        yield from self._until(lambda: self._is_whole(first), RECOVERY_S, f"{what}: a replica is not back")
        suffered.whole_s = now_s() - mended_s
        yield from self._audit(suffered)

    def _audit(self, suffered: Suffered) -> Iterator[None]:
        """Audit the live run. Groups that were taken from the streams are lost for as long as the learner needs to notice."""
        end_s = now_s() + SOUND_S
        while True:
            found = audit(self.folder.path, self._connection)
            if found.is_clean or found.problems.keys() - {"lost"} or now_s() > end_s:
                break
            yield
        suffered.audit = "clean" if found.is_clean else f"not clean: {found.problems}"
        if not found.is_clean:
            raise NotRecovered(f"after {suffered.kind} ({suffered.detail}) the audit is {suffered.audit}")

    def _check_end(self) -> None:
        """What has to be true of a run that is over, by the command that a user has for it and by the steps themselves."""
        command = [str(Path(sys.executable).parent / "ratchet"), "audit", str(self.folder.path)]
        environment = {**os.environ, REDIS_URL_VARIABLE: self._server.url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != DONE:
            self._outcome.problems.append(f"ratchet audit ended with {done.returncode}: {done.stdout}{done.stderr}")
        steps = newest(read_json_lines(self.folder.steps), "step")
        if [row["step"] for row in steps] != list(range(1, self._steps + 1)):
            self._outcome.problems.append(f"its steps are not 1 to {self._steps}, each once")
        consumed = [number for row in steps for number in row["consumed_groups"]]
        if len(consumed) != len(set(consumed)):
            self._outcome.problems.append("a step consumed a group that another had consumed")
        if not self.folder.summary.exists() or not self.folder.export.is_dir():
            self._outcome.problems.append("it has no summary or no exported model")

    def _until(self, condition: Callable[[], bool], within_s: float, otherwise: str) -> Iterator[None]:
        end_s = now_s() + within_s
        while not condition():
            if now_s() > end_s:
                raise NotRecovered(f"seed {self._outcome.seed}: the run {otherwise} within {within_s:.0f} s")
            yield

    def _pause(self, seconds: float) -> Iterator[None]:
        end_s = now_s() + seconds
        while now_s() < end_s:
            yield

    def _rows(self) -> int:
        """Steps taken, those that were repeated again."""
        return self.folder.steps.read_bytes().count(b"\n") if self.folder.steps.exists() else 0

    def _last_step(self) -> int:
        return max(int(row["step"]) for row in read_json_lines(self.folder.steps))

    def _is_whole(self, version: int = 0) -> bool:
        """Whether every replica has proven weights of this version or a later one."""
        try:
            leases = self._membership.live().values()
            return sum(lease.ready and lease.policy_version >= version for lease in leases) == REPLICAS
        except RatchetError:
            return False

    def _pace(self, group_s: float) -> None:
        draft = self.folder.path / f"{PACE}.draft"
        draft.write_text(str(group_s), encoding="utf-8")
        draft.rename(self.folder.path / PACE)

    async def _to_scoring(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        announced = json.loads((self.folder.services / "verifier.json").read_text(encoding="utf-8"))
        return await asyncio.open_connection("127.0.0.1", urlsplit(announced["url"]).port)
