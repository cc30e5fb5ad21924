"""All rooms on one machine as real processes: started, watched, started again when they die, stopped in order.

A service that dies is started again, but not more than RESTARTS times within RESTART_WINDOW_S, and not before everything
it had started is gone; one that ends because its input is wrong is not. A Redis server of our own comes back with its
address and its data. The learner ending with 0 ends the run. Stopping goes the way the data flows: the learner first,
which leaves a checkpoint, then those that feed it, Redis last.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services import library_logs
from services.clock import now_s, sleep
from services.command.redis_server import RedisServer
from services.entry import BAD_INPUT, DONE, FAILED, INTERRUPTED, SUPERVISED_VARIABLE
from services.errors import InputError, ServiceFailed

log = logging.getLogger("ratchet")

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SERVICE_VARIABLE = "RATCHET_SERVICE"
"""The service's name, in the environment of all that it starts: how what it left behind is found."""
RESTARTS = 5
RESTART_WINDOW_S = 600.0
LOOK_EVERY_S = 0.2
REMAINS_S = 10.0  # for the kernel to end what was killed


@dataclass
class Service:
    """One process under watch."""

    name: str
    command: Sequence[str]
    log_path: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as lines:
            lines.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} starting {self.name}\n".encode())
            lines.flush()
            self.process = subprocess.Popen(
                self.command,
                stdout=lines,
                stderr=lines,
                stdin=subprocess.DEVNULL,
                env={**_own_environment(), **self.environment, **self._mark()},
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops the others in order
            )

    def terminate(self) -> None:
        """To the process alone: it stops its own workers."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def clear_away(self) -> None:
        """Kill it and all that it started, and see that they are gone: they may hold ports, or a GPU's memory."""
        if self.process is None:
            return
        groups, end_s = {self.process.pid}, now_s() + REMAINS_S
        while groups:
            for group in groups:
                with suppress(ProcessLookupError, PermissionError):  # empty by now, or no longer ours
                    os.killpg(group, signal.SIGKILL)
            self.process.poll()
            if now_s() >= end_s:
                log.warning("%s left processes that do not end: groups %s", self.name, sorted(groups))
                return
            sleep(0.02)
            groups = self._remaining_groups()

    def _mark(self) -> dict[str, str]:
        return {SUPERVISED_VARIABLE: str(os.getpid()), SERVICE_VARIABLE: self.name}

    def _remaining_groups(self) -> set[int]:
        """Process groups with something of this service in them that has not ended: its own, and those of what began a
        session of its own, as torchrun's ranks do. Whole groups, because vLLM overwrites the environment in /proc."""
        assert self.process is not None
        mark = {f"{name}={value}".encode() for name, value in self._mark().items()}
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile, or is somebody else's
                state, _, group = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
                if state in "ZX":
                    continue
                if int(group) == self.process.pid or mark <= {*(folder / "environ").read_bytes().split(b"\0")}:
                    found.add(int(group))
        return found


class Supervisor:
    """Owns the processes of one `ratchet up`."""

    def __init__(
        self, learner: Service, feeding: Sequence[Service], *, shutdown_s: float, redis: RedisServer | None = None
    ) -> None:
        """feeding: what the learner depends on, nearest first. redis: a running server to look after, if it is ours;
        stopping it is left to whoever started it."""
        self._learner, self._feeding, self._shutdown_s = learner, list(feeding), shutdown_s
        self._redis = redis
        self._restarts: defaultdict[str, deque[float]] = defaultdict(deque)

    def run(self, stopping: Callable[[], bool], tick: Callable[[], None]) -> int:
        """Until the learner is done or `stopping`; the learner's exit code. Raises ServiceFailed."""
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
                tick()
                sleep(LOOK_EVERY_S)
            self._stop(self._learner)
            code = self._learner.process.returncode if self._learner.process else INTERRUPTED
            return code if code in (DONE, BAD_INPUT, FAILED) else INTERRUPTED  # torchrun has codes of its own
        finally:
            for service in [self._learner, *self._feeding]:
                self._stop(service)

    def _look_after_redis(self) -> None:
        redis = self._redis
        if redis is not None and not redis.running():
            self._count_restart("the Redis server", redis.exit_code, redis.log)
            redis.start()  # the services wait for it, for deadlines.redis_s

    def _restart(self, service: Service, code: int) -> None:
        """Raises ServiceFailed when it may not be started again, InputError when that would change nothing."""
        if code == BAD_INPUT:
            raise InputError(f"{service.name} refused its input:\n{_last_words(service.log_path)}")
        self._count_restart(service.name, code, service.log_path)
        service.clear_away()
        service.start()

    def _count_restart(self, name: str, code: int | None, log_path: Path) -> None:
        """Says that it is started again. Raises ServiceFailed when that happened too often."""
        how = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        now, restarts = now_s(), self._restarts[name]
        while restarts and now - restarts[0] > RESTART_WINDOW_S:
            restarts.popleft()
        if len(restarts) >= RESTARTS:
            raise ServiceFailed(
                f"{name} {how}, the {RESTARTS + 1}th time within {RESTART_WINDOW_S / 60:.0f} minutes. "
                f"Its log is {log_path}; it ends with\n{_last_words(log_path)}"
            )
        log.warning("%s %s; starting it again (log: %s)", name, how, log_path)
        restarts.append(now)

    def _stop(self, service: Service) -> None:
        if service.process is None:
            return
        service.terminate()
        try:
            service.process.wait(timeout=self._shutdown_s)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop within %.0f s; killing it", service.name, self._shutdown_s)
        service.clear_away()
        service.process.wait()


def _last_words(log_path: Path, lines: int = 12) -> str:
    """The end of a log, for an error message."""
    text = log_path.read_text(encoding="utf-8", errors="replace").splitlines() if log_path.exists() else []
    return "\n".join(f"    {line}" for line in text[-lines:])


def python_module(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _own_environment() -> dict[str, str]:
    """Without what a launcher may have left in it: a learner that finds a rank there joins a group that is not its own."""
    own = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    return own | library_logs.environment(own)
