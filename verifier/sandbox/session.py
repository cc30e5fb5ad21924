"""One program in one sandbox: load it, give it one test at a time, and end it, whatever it does.

The sandbox ends with everything in it: killing the first process of its namespace kills all others, and bwrap ends after
the last of them. When `with Session(...)` ends, no process and no file is left.

A session lives in a grader process, which exports no metrics. All its waits are part of the item that is graded: while they
last, ratchet_verifier_queued_items of the service counts the item, and the pool kills the process when the item takes longer
than verifier.item_deadline_s.
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

END_S = 10.0  # a process that holds gigabytes takes a while to die
READ_BYTES = 2**16
ERROR_TAIL_BYTES = 4096
SHOWN_BYTES = 60  # of what a program raised while it was loaded
HEADER_BYTES = 5  # a letter, and the length of what follows


class SandboxFailed(Exception):
    """The sandbox did not start, which is not the program's fault. The text is what bubblewrap or the kernel said."""


class Stopped(Exception):
    """The program did not load, ended, or broke a limit and was killed. The text is the detail of the verdict."""


class Finished(NamedTuple):
    """How one test ended."""

    result: str | None
    """The JSON that the program wrote; None when it wrote none."""
    raised: str | None
    """The exception that ended it, in words."""
    exit_code: int
    """The signal that ended it, negative, if one did."""
    output: bytes
    """What it printed."""
    errors: bytes
    """The end of what it printed on standard error."""


class Session:
    """Use it in a `with` block: leaving the block ends the sandbox."""

    def __init__(self, launcher: Launcher, limits: Limits) -> None:
        """Start a sandbox. Raises SandboxFailed.

        Waits for: bubblewrap to make the namespaces, and the runner to set its limits.
        Until: START_S.
        Ended by: the runner's first message, its end, or the deadline, which kills it.
        Metric: ratchet_verifier_queued_items, in the service.
        """
        self._limits = limits
        self._received = bytearray()
        self._output = bytearray()
        self._errors = bytearray()
        self._printed_bytes = 0
        self._watch: Watch | None = None
        self._first_fd: int | None = None
        self._own_namespace = launcher.bwrap is not None
        self._ended = False
        try:
            launched = launcher.start(limits)
        except OSError as fault:
            raise SandboxFailed(str(fault)) from fault
        self._process = launched.process
        self._commands = launched.commands
        self._results = launched.results
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._output_fd = self._process.stdout.fileno()
        self._error_fd = self._process.stderr.fileno()
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
        """Load the program. Raises Stopped when it cannot be loaded.

        entry_point: None for a whole program, which is only compiled.

        Waits for: the runner to run or compile the program.
        Until: Limits.wall_s, and Limits.total_s since the session began.
        Ended by: success, an exception of the program, its end, or a limit that it breaks.
        Metric: ratchet_verifier_queued_items, in the service.
        """
        self._begin(self._limits.wall_s)
        self._send({"program": program, "entry_point": entry_point})
        letter, body = self._next(b"LX")
        if letter == b"X":
            said = body[:SHOWN_BYTES].decode("utf-8", "replace")
            raise Stopped(f"the program does not load: {said}")

    def test(self, command: Any) -> Finished:
        """Run one test. Returns once its process and all that it started are gone. Raises Stopped.

        Waits for: the program's result, then the end of its processes.
        Until: Limits.wall_s, and Limits.total_s since the session began.
        Ended by: the result, the program's end, or a limit that it breaks.
        Metric: ratchet_verifier_queued_items, in the service.
        """
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
        """Kill everything and return when it is gone. Safe to call twice.

        Waits for: the last process of the sandbox, and bwrap after it.
        Until: END_S for the namespace; then its processes are killed one by one, which the kernel completes.
        Ended by: the end of the processes.
        Metric: ratchet_verifier_queued_items, in the service.
        """
        if self._ended:
            return
        self._ended = True
        os.close(self._commands)  # a sandbox that is still starting ends by this
        if self._first_fd is not None:
            # The first process rather than bwrap, which then ends after the last process of the namespace.
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
        """Take the runner's first message and begin to watch it. Raises SandboxFailed."""
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
        """Start the time of one step, and return its end."""
        at_s = now_s()
        self._wall_s = wall_s
        self._deadline_s = at_s + wall_s
        if self._watch is not None:
            self._watch.begin(at_s)
        return self._deadline_s

    def _send(self, command: Any) -> None:
        """Write a command to the runner. Raises Stopped.

        Waits for: the runner to read it.
        Until: as in `_wait`.
        Ended by: its last byte, the runner's end, or as in `_wait`.
        Metric: ratchet_verifier_queued_items, in the service.
        """
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
        """The letter and body of the next message. Raises Stopped if its letter is another one.

        Waits for: a whole message of the runner.
        Until: as in `_wait`.
        Ended by: the message, or as in `_wait`.
        Metric: ratchet_verifier_queued_items, in the service.
        """
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
        """Read what is there, at most one look at the limits later. Raises Stopped.

        Waits for: something to read from the runner, or room to write to it if `writable` is given.
        Until: LOOK_S, the end of wall_s or the end of total_s, whichever comes first.
        Ended by: data, room, a broken limit, or the time.
        Metric: ratchet_verifier_queued_items, in the service.
        """
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
        """Read what the program printed; False when there is nothing more for now. Raises Stopped."""
        try:
            part = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not part:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)  # or it would always be ready
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
        """Read all that was printed before the last message."""
        for fd in (self._output_fd, self._error_fd):
            while self._read_printed(fd):
                pass


def kill_all(processes: list[int]) -> None:
    """Kill each process that still exists, the last first."""
    for pid in reversed(processes):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
