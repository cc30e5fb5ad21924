"""All rooms on one machine as real processes: started, watched, started again when they die, stopped in order.

A service that dies is started again, at most RESTARTS times within RESTART_WINDOW_S or without progress of the run, and not
before everything that it had started is gone. It is not started again when the error that it left says so (services/cause.py),
nor when it left the same error twice while the run made no progress. Deaths of the learner by which it finds a group that kills
it are not counted; learner/control/suspicion.py bounds them. A Redis server of our own comes back with its address and its data.
The run ends when the learner ends with exit code 0. Stopping begins at the learner, which leaves a checkpoint; then the services
that feed it are stopped, all at once, and Redis last.
"""

import logging
import os
import signal
import subprocess
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services import cause, library_logs, log_lines
from services.cause import CAUSE_VARIABLE, Cause
from services.clock import now_s, sleep
from services.command.bounded_log import bound_log
from services.command.early_start import EarlyProcess
from services.command.redis_server import RedisServer
from services.command.rooms import SAFE_PATH
from services.entry import BAD_INPUT, DONE, FAILED, INTERRUPTED, SUPERVISED_VARIABLE
from services.errors import InputError, ServiceFailed

log = logging.getLogger("ratchet")

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SERVICE_VARIABLE = "RATCHET_SERVICE"
"""Holds the service's name in the environment of all that it starts, so that what it left behind can be found."""
RESTARTS = 5
RESTART_WINDOW_S = 600.0
LOOK_EVERY_S = 0.2
FEEDING_STOP_S = 5.0
"""How long the services that feed the learner may take to stop, all of them together: they keep nothing, and what they had
claimed they claim again at the next start."""
REMAINS_S = 10.0
"""How long the kernel may take to end what was killed."""


@dataclass
class Service:
    """One supervised process."""

    name: str
    command: Sequence[str]
    log_path: Path
    environment: dict[str, str]
    """What it has in addition to the supervisor's own."""
    process: subprocess.Popen[bytes] | None = None
    early: EarlyProcess | None = None
    """A process of it that waits for its word, for the first start."""

    @property
    def cause_path(self) -> Path:
        """Where it leaves what ended it."""
        return self.log_path.with_name(f".{self.name}.cause")

    def start(self) -> None:
        """Start it, with its output appended to its log."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        cause.make_room(self.cause_path)
        with self.log_path.open("ab") as lines:
            lines.write(_first_line(self.name).encode())
            lines.flush()
            self.process = self._woken() or subprocess.Popen(
                self.command,
                stdout=lines,
                stderr=lines,
                stdin=subprocess.DEVNULL,
                env=self.whole_environment(),
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops the others in order
            )

    def whole_environment(self) -> dict[str, str]:
        """What its process is started with."""
        return {**_own_environment(), **self.environment, **self._mark()}

    def _woken(self) -> subprocess.Popen[bytes] | None:
        """The process that was started early, once; None if there is none that lives."""
        early, self.early = self.early, None
        if early is None:
            return None
        return early.go(self.command[len(early.command) :], self.whole_environment(), self.log_path)

    def terminate(self) -> None:
        """Ask the process to stop; it stops its own workers. One that was suspended is woken, or it would not hear."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            _to_groups({self.process.pid}, signal.SIGCONT)

    def clear_away(self) -> None:
        """Kill it and all that it started, and see that they are gone."""
        clear_away([self])

    def _mark(self) -> dict[str, str]:
        return {
            SUPERVISED_VARIABLE: str(os.getpid()),
            SERVICE_VARIABLE: self.name,
            CAUSE_VARIABLE: str(self.cause_path.resolve()),
        }

    def remaining_groups(self) -> set[int]:
        """Process groups in which something of this service has not ended.

        They are its own group, and those of descendants that began a session of their own, as torchrun's ranks do. Whole
        groups are counted, because vLLM overwrites its environment in /proc.
        """
        if self.process is None:
            return set()
        mark = {f"{name}={value}".encode() for name, value in self._mark().items()}
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended, or belongs to another user
                state, _, group = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
                if state in "ZX":
                    continue
                if int(group) == self.process.pid or mark <= {*(folder / "environ").read_bytes().split(b"\0")}:
                    found.add(int(group))
        return found


def clear_away(services: Sequence[Service]) -> None:
    """Kill services and all that they started, and see that they are gone: they may hold ports, or a GPU's memory.

    Waits for: the killed processes.
    Until: 10 s (REMAINS_S), for all of them together; then it warns and goes on.
    Ended by: their end, or the deadline.
    Metric: none; the log of `ratchet up` names what remains.
    """
    groups = {service.name: {service.process.pid} for service in services if service.process is not None}
    end_s = now_s() + REMAINS_S
    while groups:
        for service in services:
            _to_groups(groups.get(service.name, set()), signal.SIGKILL)
            if service.process is not None:
                service.process.poll()
        if now_s() >= end_s:
            for name, left in groups.items():
                log.warning("%s left processes that do not end: groups %s", name, sorted(left))
            return
        sleep(0.02)
        groups = {service.name: left for service in services if (left := service.remaining_groups())}


def _to_groups(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):  # empty by now, or no longer ours
            os.killpg(group, number)


class Supervisor:
    """Owns the processes of one `ratchet up`."""

    def __init__(
        self,
        learner: Service,
        feeding: Sequence[Service],
        *,
        shutdown_s: float,
        redis: RedisServer | None = None,
        progress: Callable[[], object] = lambda: None,
        tries: Callable[[], str] = str,
    ) -> None:
        """feeding: what the learner depends on. shutdown_s: deadlines.shutdown_s, for the learner. redis: a running server of
        our own to start again when it dies; the caller stops it. progress: a value that changes as the run gets on.
        tries: what the learner that has just died was trying out, in words; empty: nothing that it was expected to die of."""
        self._learner = learner
        self._feeding = list(feeding)
        self._shutdown_s = shutdown_s
        self._redis = redis
        self._progress = progress
        self._tries = tries
        self._restarts: defaultdict[str, deque[tuple[float, object]]] = defaultdict(
            deque
        )  # when, and the progress until then
        self._ended: dict[str, tuple[Cause, object]] = {}  # service -> what ended it last, and the progress until then

    def run(self, stopping: Callable[[], bool], tick: Callable[[], None]) -> int:
        """Start everything and watch it until the learner is done or `stopping`; the learner's exit code.

        tick: called every 0.2 s. Raises ServiceFailed if a service keeps dying, InputError if one refuses its input.

        Waits for: the learner to finish the run.
        Until: it is stopped; each service has its own deadlines.
        Ended by: the learner's exit code 0, `stopping`, a service that died too often, or one that refuses its input.
        Metric: none; the live display shows the run, and the learner's ratchet_waiting what it waits for.
        """
        for service in [*self._feeding, self._learner]:
            service.start()
        try:
            while not stopping():
                self._look_after_redis()
                for service in [self._learner, *self._feeding]:
                    code = service.process.poll() if service.process else None
                    if code is None:
                        continue
                    if service is self._learner and code == DONE:
                        return code
                    self._restart(service, code)
                for service in [self._learner, *self._feeding]:
                    bound_log(service.log_path)
                tick()
                sleep(LOOK_EVERY_S)
            if self._redis is not None:
                self._redis.wake()  # the learner says goodbye to it
            self._stop([self._learner], self._shutdown_s)
            code = self._learner.process.returncode if self._learner.process else INTERRUPTED
            return code if code in (DONE, BAD_INPUT, FAILED) else INTERRUPTED  # torchrun has codes of its own
        finally:
            self._stop([self._learner], self._shutdown_s)
            self._stop(self._feeding, min(self._shutdown_s, FEEDING_STOP_S))

    def _look_after_redis(self) -> None:
        redis = self._redis
        if redis is not None and not redis.running():
            self._count_restart("the Redis server", redis.exit_code, redis.log)
            redis.start()  # the services wait for it, for deadlines.redis_s

    def _restart(self, service: Service, code: int) -> None:
        """Start a dead service again. Raises ServiceFailed if that would not help, InputError if it refused its input."""
        left = cause.found(service.cause_path)
        if code == BAD_INPUT or (left is not None and left.is_input):
            what = _indented(left.message) if left else _last_words(service.log_path)
            raise InputError(f"{service.name} refused its input:\n{what}")
        if left is not None:
            self._check_cause(service, left)
        tried = self._tries() if service is self._learner else ""
        if tried:
            log.warning(
                "%s %s while it tried %s; starting it again (log: %s)",
                service.name,
                _ended(code, left),
                tried,
                service.log_path,
            )
        else:
            self._count_restart(service.name, code, service.log_path, left)
        service.clear_away()
        service.start()

    def _check_cause(self, service: Service, left: Cause) -> None:
        """Raises ServiceFailed if another start would end as this one did."""
        if left.retry == "never":
            raise ServiceFailed(f"{service.name} cannot go on: {left.message}")
        before, progress = self._ended.get(service.name, (None, None)), self._progress()
        if left.retry == "once" and left.repeats(before[0]) and before[1] == progress:
            raise ServiceFailed(
                f"{service.name} ended twice for the same reason, so it is not started again: {left.message}\n"
                f"Its log is {service.log_path}"
            )
        self._ended[service.name] = (left, progress)

    def _count_restart(self, name: str, code: int | None, log_path: Path, left: Cause | None = None) -> None:
        """Log that it is started again. Raises ServiceFailed if that happened too often. left: what the service says."""
        how, now = _ended(code, left), now_s()
        restarts, progress = self._restarts[name], self._progress()
        while restarts and now - restarts[0][0] > RESTART_WINDOW_S and restarts[0][1] != progress:
            restarts.popleft()
        if len(restarts) >= RESTARTS:
            within = f"within {RESTART_WINDOW_S / 60:.0f} minutes"
            if now - restarts[0][0] > RESTART_WINDOW_S:
                within = "in which the run took no step"
            raise ServiceFailed(
                f"{name} {how}, after {RESTARTS} restarts {within}. Its log is {log_path}; it ends with\n{_last_words(log_path)}"
            )
        log.warning("%s %s; starting it again (log: %s)", name, how, log_path)
        restarts.append((now, progress))

    def _stop(self, services: Sequence[Service], within_s: float) -> None:
        """Ask services to stop, all at once, and clear away what is left of them.

        Waits for: the services to end.
        Until: deadlines.shutdown_s for the learner, 5 s (FEEDING_STOP_S) for all others together; then they are killed.
        Ended by: their end, or the deadline.
        Metric: none; the log of `ratchet up` says which service was killed.
        """
        end_s = now_s() + within_s
        for service in services:
            service.terminate()
        for service in services:
            try:
                if service.process is not None:
                    service.process.wait(timeout=max(0.0, end_s - now_s()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop within %.0f s; killing it", service.name, within_s)
        clear_away(services)
        for service in services:
            if service.process is not None:
                with suppress(subprocess.TimeoutExpired):  # `clear_away` has warned of what the kernel does not end
                    service.process.wait(timeout=1.0)


def _ended(code: int | None, left: Cause | None) -> str:
    """How a service ended, in words."""
    how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
    return how if left is None else f"{how} ({left.message})"


def _first_line(name: str) -> str:
    """What the log of a service has before each start."""
    if log_lines.is_json():
        said = {"name": "ratchet", "levelname": "INFO", "msg": f"starting {name}"}
        return log_lines.JsonLine("up").format(logging.makeLogRecord(said)) + "\n"
    return f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} starting {name}\n"


def _last_words(log_path: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    text = log_path.read_text(encoding="utf-8", errors="replace").splitlines() if log_path.exists() else []
    return _indented("\n".join(text[-lines:]))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _own_environment() -> dict[str, str]:
    """The environment without what a launcher may have left: with a rank there, a learner would join a foreign group."""
    own = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    return own | SAFE_PATH | library_logs.environment(own)
