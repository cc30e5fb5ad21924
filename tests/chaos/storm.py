"""One training run of real processes, and the faults done to it: it has to come to its last step, and its books have to add up.

Real: the learner (DeepSpeed, the model of examples/addition), the verifier with its grader processes, Redis, the replicas with
their streams, leases and receivers, the supervisor. The engine samples without a model at a pace of the harness's choice, and
then the accounts and the steps are looked at, and not accuracy; or it is vLLM, and then accuracy counts too.

Where the user may make network namespaces, the learner and each replica have one of their own, so that whatever goes between them
can be cut and slowed. Services reach Redis, and the verifier's worker the scoring service, through relays.
"""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from services.clock import now_s, sleep
from services.command import supervisor
from services.command.redis_server import RedisServer
from services.command.run_processes import write_settings
from services.command.supervisor import Supervisor
from services.config import RunConfig
from services.entry import DONE, REDIS_URL_VARIABLE
from services.errors import RatchetError
from services.run.audit import audit
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.summary import newest
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from tests.chaos.clocks import clock_of, jump, redis_with
from tests.chaos.faults import BY_HAND, REDIS, SERVICES, Fault
from tests.chaos.networks import Network
from tests.chaos.stage import Engine, last_step, services_of, set_pace, settings_of, steps_taken
from tests.chaos.wires import Wire, Wires

REPLICAS = 2
GROUPS_PER_STEP = 4
FIRST_STEPS = 8
GROUP_S = 1.5
"""How long a group takes while faults are done: a step then takes about half a second."""
START_S: dict[Engine, float] = {"paced": 120.0, "real": 400.0}
RECOVERY_S: dict[Engine, float] = {"paced": 120.0, "real": 400.0}
"""A run that has taken no step by then, or whose books do not add up, has not recovered. A real engine takes a while to start."""
LONGEST_S = 1800.0
"""Until a run with a real engine, to which nothing is done, has come to where the next fault is due."""
INSTANT_S = 30.0
SOUND_S = 30.0
HAND_STARTS = 4
APART = "learner", "rollout-0", "rollout-1"
"""Services that have a network of their own."""


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
    accuracy: float | None = None
    """On held-out prompts after the last step, with a real engine."""

    @property
    def is_good(self) -> bool:
        return not self.problems and all(fault.is_good for fault in self.faults)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"good": self.is_good}

    @classmethod
    def of(cls, written: dict[str, Any]) -> Self:
        """What `to_dict` made a dictionary of."""
        own = {name: value for name, value in written.items() if name != "good"}
        return cls(**own | {"faults": [Suffered(**fault) for fault in own["faults"]]})


def config_of(
    folder: Path, steps: int | None, checkpoint_steps: int, engine: Engine, places: Sequence[str]
) -> RunConfig:
    """The settings of a run. steps: None is what the example has. places: where things are, as overrides."""
    paced = [f"learner.groups_per_step={GROUPS_PER_STEP}"] if engine == "paced" else []
    return settings_of(
        folder,
        [
            "name=chaos",
            *([f"learner.steps={steps}"] if steps is not None else []),
            f"learner.checkpoint={{every_steps = {checkpoint_steps}, keep = 3}}",
            f"rollout.replicas={REPLICAS}",
            *paced,
            *places,
        ],
        engine,
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
        engine: Engine = "paced",
        has_network: bool = False,
    ) -> None:
        """folder: of the run folder. seed: of the pauses between the faults. disk: a small one that the folder is on. sabotage:
        a name in entries.SABOTAGES. steps_per_fault: a run with a paced engine that has taken them has no more faults done to
        it; with a real one it has the example's steps, and faults all the way. has_network: the learner and the replicas get
        namespaces; raises OSError where this user may not make them."""
        self.disk = disk
        self._rng = random.Random(seed)
        self._faults = faults
        self._engine = engine
        self._server = RedisServer(folder / "chaos" / "redis")
        self.network = Network(APART) if has_network else None
        self._wires = Wires()
        parts = urlsplit(self._server.url)
        path = unquote(parts.path)
        self.wires = {name: self._wires.to_socket(path, self._listener(name)) for name in SERVICES}
        self.scoring: Wire = self._wires.to(self._to_scoring)
        places = [f"verifier.url=http://127.0.0.1:{self.scoring.port}"]
        if self.network is not None:
            places.append(f"weights.host={self.network.address('learner')}")
        steps = FIRST_STEPS + steps_per_fault * len(faults) if engine == "paced" else None
        self._config = config_of(folder, steps, checkpoint_steps, engine, places)
        self._steps = self._config.learner.steps
        self.name = self._config.name
        self.folder = RunFolder(self._config.folder)
        self._outcome = Outcome(seed, self._steps)
        self._mend: Callable[[], None] | None = None
        self._connection = RedisConnection(self._server.url, deadline_s=10.0)
        self._membership = Membership(self._connection, self.name, self._config.deadlines.lease_s)
        self.services = services_of(
            self.folder,
            SERVICES,
            lambda name: f"redis://:{parts.password}@127.0.0.1:{self.wires[name].port}/0",
            engine=engine,
            sabotage=sabotage,
            network=self._namespace,
        )

    def run(self) -> Outcome:
        """Run to the last step; what came of it. Call it once."""
        begun_s = now_s()
        self.folder.services.mkdir(parents=True)
        write_settings(self._config, self.folder)
        set_pace(self.folder, GROUP_S)
        try:
            with (
                tempfile.TemporaryDirectory(prefix="chaos-") as programs,
                redis_with(self._redis_clock, Path(programs)),
                self._server,
            ):
                self._see_through()
                if not self._outcome.problems:
                    self._check_end()
        finally:
            for service in self.services.values():
                service.clear_away()
            self._connection.close()
            self._wires.close()
            if self.network is not None:
                self.network.close()
        self._outcome.seconds = now_s() - begun_s
        return self._outcome

    def redis(self) -> RedisConnection:
        return self._connection

    def signal_redis(self, number: signal.Signals) -> None:
        if self._server.pid is not None:
            os.kill(self._server.pid, number)

    def jump(self, service: str, seconds: float) -> None:
        jump(clock_of(self.folder.path, service), seconds)

    @property
    def _redis_clock(self) -> Path:
        return clock_of(self.folder.path.resolve(), REDIS)

    def _namespace(self, name: str) -> Path | None:
        return self.network.namespace(name) if self.network is not None and name in APART else None

    def _listener(self, name: str) -> socket.socket | None:
        return self.network.listener(name) if self.network is not None and name in APART else None

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
        yield from self._until(
            lambda: steps_taken(self.folder) >= 3 and self._is_whole(), START_S[self._engine], "did not begin"
        )
        for number, fault in enumerate(self._faults, 1):
            yield from self._pause(self._rng.uniform(0.0, 1.5))
            if self._engine == "real":
                yield from self._until_step(number * self._steps // (len(self._faults) + 1))
            if last_step(self.folder) >= self._steps - 2:
                break
            yield from self._suffer(fault)
        set_pace(self.folder, 0.0)

    def _until_step(self, step: int) -> Iterator[None]:
        yield from self._until(lambda: last_step(self.folder) >= step, LONGEST_S, f"did not come to step {step}")

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
        mended_s, before = now_s(), steps_taken(self.folder)
        what = f"did not recover from: {fault.kind} ({fault.detail})"
        yield from self._until(
            lambda: steps_taken(self.folder) >= before + 2, RECOVERY_S[self._engine], f"{what}: no step"
        )
        suffered.recovery_s = now_s() - mended_s
        first = read_json_lines(self.folder.steps)[before]["step"]
        yield from self._until(
            lambda: self._is_whole(first), RECOVERY_S[self._engine], f"{what}: a replica is not back"
        )
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
        elif self._engine == "real":
            self._outcome.accuracy = json.loads(self.folder.summary.read_text(encoding="utf-8"))["accuracy_after"]

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

    def _is_whole(self, version: int = 0) -> bool:
        """Whether every replica has proven weights of this version or a later one."""
        try:
            leases = self._membership.live().values()
            return sum(lease.ready and lease.policy_version >= version for lease in leases) == REPLICAS
        except RatchetError:
            return False

    async def _to_scoring(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        announced = json.loads((self.folder.services / "verifier.json").read_text(encoding="utf-8"))
        return await asyncio.open_connection("127.0.0.1", urlsplit(announced["url"]).port)
