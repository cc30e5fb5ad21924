"""The services of a chaos run as processes, forked from one that has imported everything: a start takes a second, not twenty.

The supervisor is that of `ratchet up`; only how a service is started differs.
"""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from services import cause
from services.cause import CAUSE_VARIABLE
from services.command.supervisor import SERVICE_VARIABLE, Service
from services.entry import SUPERVISED_VARIABLE
from tests.forking import forking


@dataclass(frozen=True)
class Place:
    """Where and as what a process is to run."""

    log: Path
    environment: dict[str, str]
    folder: Path
    """The run's, where it finds its clock and orders to die."""
    engine: str
    sabotage: str | None
    namespace: Path | None


def _be(*arguments: Any) -> None:
    from tests.chaos import entries  # imports torch, which only the fork server has to

    entries.run_forked(*arguments)


class Forked:
    """A process of the fork server, with what a supervisor asks of a subprocess.Popen."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = process.pid

    @property
    def returncode(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code


@dataclass
class ForkedService(Service):
    """A supervised service whose command is the arguments of its program."""

    folder: Path = Path()
    """The run's, where it finds orders to die."""
    engine: str = "paced"
    sabotage: str | None = None
    namespace: Path | None = None
    """The network that it lives in, as networks.enter takes it; None: that of this process."""

    def start(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        cause.make_room(self.cause_path)
        environment = {
            **self.environment,
            SUPERVISED_VARIABLE: str(os.getpid()),
            SERVICE_VARIABLE: self.name,
            CAUSE_VARIABLE: str(self.cause_path.resolve()),
        }
        place = Place(self.log_path, environment, self.folder, self.engine, self.sabotage, self.namespace)
        arguments = (self.name, list(self.command), place)
        process = forking().Process(target=_be, args=arguments, name=self.name)
        process.start()
        self.process = cast("subprocess.Popen[bytes]", Forked(process))

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it to the process, if that has not ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
