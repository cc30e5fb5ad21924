"""All rooms on one machine as real processes: started, watched, started again when they die, stopped in order.

A service that dies is started again, but not more than RESTARTS times within RESTART_WINDOW_S; one that ends because its
input is wrong is not. The learner ending with 0 ends the run. Stopping goes the way the data flows: the learner first,
which leaves a checkpoint, then those that feed it, Redis last.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.clock import now_s, sleep
from services.entry import BAD_INPUT, DONE, FAILED, INTERRUPTED, SUPERVISED_VARIABLE
from services.errors import InputError, ServiceFailed

log = logging.getLogger("ratchet")

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
RESTARTS = 5
RESTART_WINDOW_S = 600.0
LOOK_EVERY_S = 0.2


@dataclass
class Service:
    """One process under watch."""

    name: str
    command: Sequence[str]
    log_path: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    restarts: deque[float] = field(default_factory=deque)

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
                env={**_own_environment(), **self.environment, SUPERVISED_VARIABLE: str(os.getpid())},
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops the others in order
            )

    def last_words(self, lines: int = 12) -> str:
        """The end of its log, for an error message."""
        text = (
            self.log_path.read_text(encoding="utf-8", errors="replace").splitlines() if self.log_path.exists() else []
        )
        return "\n".join(f"    {line}" for line in text[-lines:])

    def signal(self, number: int) -> None:
        """To the process and everything it started: engines have workers of their own."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def terminate(self) -> None:
        """To the process alone: it stops its own workers."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


class Supervisor:
    """Owns the processes of one `ratchet up`."""

    def __init__(self, learner: Service, feeding: Sequence[Service], *, shutdown_s: float) -> None:
        """feeding: what the learner depends on, nearest first."""
        self._learner, self._feeding, self._shutdown_s = learner, list(feeding), shutdown_s

    def run(self, stopping: Callable[[], bool], tick: Callable[[], None]) -> int:
        """Until the learner is done or `stopping`; the learner's exit code. Raises ServiceFailed."""
        for service in [*self._feeding, self._learner]:
            service.start()
        try:
            while not stopping():
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

    def _restart(self, service: Service, code: int) -> None:
        """Raises ServiceFailed when it may not be started again, InputError when that would change nothing."""
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if code == BAD_INPUT:
            raise InputError(f"{service.name} refused its input:\n{service.last_words()}")
        now = now_s()
        while service.restarts and now - service.restarts[0] > RESTART_WINDOW_S:
            service.restarts.popleft()
        if len(service.restarts) >= RESTARTS:
            raise ServiceFailed(
                f"{service.name} was {how}, the {RESTARTS + 1}th time within {RESTART_WINDOW_S / 60:.0f} minutes. "
                f"Its log is {service.log_path}; it ends with\n{service.last_words()}"
            )
        log.warning("%s was %s; starting it again (log: %s)", service.name, how, service.log_path)
        service.restarts.append(now)
        service.signal(signal.SIGKILL)
        service.start()

    def _stop(self, service: Service) -> None:
        if service.process is None:
            return
        service.terminate()
        try:
            service.process.wait(timeout=self._shutdown_s)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop within %.0f s; killing it", service.name, self._shutdown_s)
        _kill_group(service.process.pid)
        service.process.wait()


def _kill_group(pid: int) -> None:
    """Whatever a service left behind in its process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def python_module(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _own_environment() -> dict[str, str]:
    """Without what a launcher may have left in it: a learner that finds a rank there joins a group that is not its own."""
    return {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
