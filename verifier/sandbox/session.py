"""One program in one sandbox: load it, give it one test at a time, and end it, whatever it does.

The sandbox ends with everything in it: killing the first process of its namespace kills all others, and bwrap ends after
the last of them. Whoever leaves `with Session(...)` leaves no process and no file behind.
"""

import contextlib
import json
import os
import select
import signal
from types import TracebackType
from typing import Any, NamedTuple, Self

from services.clock import now_s
from services.config.sandbox import START_S
from verifier.sandbox.footprint import descendants
from verifier.sandbox.launch import Launcher
from verifier.sandbox.limits import Limits
from verifier.sandbox.watch import LOOK_S, Watch

END_S = 10.0  # a process with gigabytes in hand takes its time to die
READ_BYTES = 2**16
ERROR_TAIL_BYTES = 4096
SHOWN_BYTES = 60  # of what it raised while it was loaded
HEADER_BYTES = 5  # a letter, and the length of what follows


class SandboxFailed(Exception):
    """Not the program's doing: the sandbox did not start. Its text is what was said about it."""


class Stopped(Exception):
    """The program did not load, ended, or broke a limit and was killed. Its text is the detail of the verdict."""


class Finished(NamedTuple):
    """How one test ended."""

    result: str | None
    """JSON, as the program wrote it; None where it gave none."""
    raised: str | None
    exit_code: int
    """Minus the signal where one ended it."""
    output: bytes
    errors: bytes
    """The end of it."""


class Session:
    def __init__(self, launcher: Launcher, limits: Limits) -> None:
        """Raises SandboxFailed."""
        self._limits = limits
        self._received, self._output, self._errors = bytearray(), bytearray(), bytearray()
        self._printed_bytes = 0
        self._watch: Watch | None = None
        self._first_fd: int | None = None
        self._own_namespace = launcher.bwrap is not None
        self._ended = False
        try:
            launched = launcher.start(limits)
        except OSError as fault:
            raise SandboxFailed(str(fault)) from fault
        self._process, self._commands = launched.process, launched.commands
        self._results = launched.results
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._output_fd, self._error_fd = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._poll = select.poll()
        for fd in (self._results, self._output_fd, self._error_fd):
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
        os.set_blocking(self._commands, False)
        try:
            self._total_at_s = self._begin(START_S)
            self._start(launcher)
            self._total_at_s = now_s() + limits.total_s
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def load(self, program: str, entry_point: str | None) -> None:
        """entry_point None: a whole program, which is only compiled. Raises Stopped when it cannot be loaded."""
        self._begin(self._limits.wall_s)
        self._send({"program": program, "entry_point": entry_point})
        letter, body = self._next(b"LX")
        if letter == b"X":
            said = body[:SHOWN_BYTES].decode("utf-8", "replace")
            raise Stopped(f"the program does not load: {said}")

    def test(self, command: Any) -> Finished:
        """Returns once the process of the test and all that it started are gone. Raises Stopped."""
        self._begin(self._limits.wall_s)
        self._output.clear()
        self._errors.clear()
        self._printed_bytes = 0
        self._send(command)
        letter, body = self._next(b"RXE")
        result = body.decode("utf-8", "replace") if letter == b"R" else None
        raised = body.decode("utf-8", "replace") if letter == b"X" else None
        if letter != b"E":
            letter, body = self._next(b"E")
        self._drain()
        try:
            exit_code = int(body)
        except ValueError:
            raise Stopped("the program wrote to the runner's pipe") from None
        return Finished(result, raised, exit_code, bytes(self._output), bytes(self._errors))

    def end(self) -> None:
        """Kill everything and wait until it is gone. Safe to call twice."""
        if self._ended:
            return
        self._ended = True
        os.close(self._commands)  # a sandbox that is still starting ends by this
        if self._first_fd is not None:
            # Rather than bwrap itself: like this it ends after the last process of the namespace.
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._first_fd, signal.SIGKILL)
        elif not self._own_namespace:
            kill_all(descendants(self._process.pid))
        process_fd = os.pidfd_open(self._process.pid)
        if not select.select([process_fd], [], [], END_S)[0]:
            kill_all(descendants(self._process.pid))
        self._process.wait()
        for fd in (process_fd, self._first_fd, self._results):
            if fd is not None:
                os.close(fd)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _start(self, launcher: Launcher) -> None:
        try:
            self._next(b"S")
        except Stopped as fault:
            self._drain()
            said = bytes(self._errors).decode("utf-8", "replace").strip()
            raise SandboxFailed(said or f"the sandbox did not come up: {fault}") from fault
        first, runner = self._process.pid, None
        if launcher.bwrap is not None:
            first = runner = descendants(self._process.pid)[1]
            self._first_fd = os.pidfd_open(first)
        self._watch = Watch(first, runner, self._limits)

    def _begin(self, wall_s: float) -> float:
        at_s = now_s()
        self._wall_s, self._deadline_s = wall_s, at_s + wall_s
        if self._watch is not None:
            self._watch.begin(at_s)
        return self._deadline_s

    def _send(self, command: Any) -> None:
        body = json.dumps(command).encode()
        pending = memoryview(len(body).to_bytes(4, "little") + body)
        while pending:
            try:
                pending = pending[os.write(self._commands, pending) :]
            except BlockingIOError:
                self._wait(self._commands)
            except BrokenPipeError:
                raise Stopped("the program ended the runner") from None

    def _next(self, letters: bytes) -> tuple[bytes, bytes]:
        """The next message, which has to be one of these."""
        while True:
            if len(self._received) >= HEADER_BYTES:
                letter, size = bytes(self._received[:1]), int.from_bytes(self._received[1:HEADER_BYTES], "little")
                if letter not in letters:
                    raise Stopped("the program wrote to the runner's pipe")
                if size > self._limits.output_bytes:
                    raise Stopped(f"output over {self._limits.output_bytes} bytes")
                end = HEADER_BYTES + size
                if len(self._received) >= end:
                    body = bytes(self._received[HEADER_BYTES:end])
                    del self._received[:end]
                    return letter, body
            self._wait()

    def _wait(self, writable: int | None = None) -> None:
        """Until there is something to read or to write, or it is time to look at the limits. Raises Stopped."""
        at_s = now_s()
        if at_s >= self._deadline_s:
            raise Stopped(f"wall time over {self._wall_s:g} s")
        if at_s >= self._total_at_s:
            raise Stopped(f"wall time of all tests over {self._limits.total_s:g} s")
        if self._watch is not None and (limit := self._watch.broken(at_s)):
            raise Stopped(limit)
        if writable is not None:
            self._poll.register(writable, select.POLLOUT)
        left_s = min(self._deadline_s, self._total_at_s) - at_s
        ready = self._poll.poll(min(left_s, LOOK_S) * 1000)
        if writable is not None:
            self._poll.unregister(writable)
        for fd, _ in ready:
            if fd == self._results:
                part = os.read(fd, READ_BYTES)
                if not part:
                    raise Stopped("the program ended the runner")
                self._received += part
            elif fd != writable:
                self._read_printed(fd)

    def _read_printed(self, fd: int) -> bool:
        """False: there is nothing more for now."""
        try:
            part = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not part:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)  # or it would be ready for ever
            return False
        self._printed_bytes += len(part)
        if self._printed_bytes > self._limits.output_bytes:
            raise Stopped(f"output over {self._limits.output_bytes} bytes")
        if fd == self._output_fd:
            self._output += part
        else:
            self._errors += part
            del self._errors[:-ERROR_TAIL_BYTES]
        return True

    def _drain(self) -> None:
        """What was printed before the message that was just read."""
        for fd in (self._output_fd, self._error_fd):
            while self._read_printed(fd):
                pass


def kill_all(processes: list[int]) -> None:
    for pid in reversed(processes):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
