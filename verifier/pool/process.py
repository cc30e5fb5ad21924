"""The pool's end of one grader process: talk to it, see how far it is, kill it.

A plain child process rather than a member of ProcessPoolExecutor, which can neither kill one of its own nor say what it was
working on. SIGKILL also ends a loop in C that ignores every other signal.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from services.clock import now_s
from verifier.pool.protocol import HEADER, GradeResult, GradeTask, Hello, ItemProgress, ProgressPage

_encoder = msgspec.json.Encoder()
_results_decoder = msgspec.json.Decoder(list[GradeResult])


class GraderProcess:
    """Made by ForkServer.grow."""

    def __init__(self, pid: int, ending: "asyncio.Future[str]", page: ProgressPage) -> None:
        self.pid = pid
        self._ending = ending
        self._page = page
        self.killed_s: float | None = None
        """When the pool killed it, in monotonic seconds; None: it ended by itself, or has not ended."""
        self.killed_cpu_s = 0.0
        """CPU time that it had used by then."""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, ours: socket.socket, hello: Hello) -> None:
        """Raises EOFError when the process has ended.

        Waits for: the process's first answer.
        Until: the caller's deadline, forks.START_DEADLINE_S.
        Ended by: the answer, or the end of the process.
        Metric: ratchet_waiting{room="verifier", awaiting="grader process"}.
        """
        reader, writer = await asyncio.open_connection(sock=ours)
        self._reader = reader
        self._writer = writer
        self._write(hello)
        await self.receive()  # an empty answer: it listens

    def send(self, chunk: int, tasks: Sequence[GradeTask]) -> None:
        """Never blocks: what the process has not read yet waits in memory."""
        self._write((chunk, tasks))

    async def receive(self) -> list[GradeResult]:
        """The next results, in the order of the tasks. Raises EOFError when the process has ended.

        Waits for: the grader process.
        Until: the pool kills the process at its item's deadline; there is no deadline here.
        Ended by: results, or the end of the process.
        Metric: ratchet_verifier_queued_items.
        """
        try:
            (size,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            return _results_decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as fault:
            raise EOFError("the grader process has ended") from fault

    def progress(self) -> ItemProgress:
        return self._page.read()

    def cpu_s(self) -> float:
        """CPU time that it has used so far; 0 where the system does not tell, or once it has ended."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # its process clock, as clock_getcpuclockid makes it
        except OSError:
            return 0.0

    def lower_priority(self) -> None:
        """From now on the other processes get the processor first."""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, 10)

    def kill(self) -> None:
        """Results already sent can still be received; then `receive` raises EOFError."""
        if self.killed_s is None:
            self.killed_s = now_s()
            self.killed_cpu_s = self.cpu_s()
        if not self._ending.done():  # until then the number belongs to this process, dead or alive
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """How the process ended, for example "exit code 7". Called after kill or EOFError.

        Waits for: the kernel, and the fork server's word of it.
        Until: no deadline: the process is already dead or killed.
        Ended by: the process's end, or the fork server's.
        Metric: ratchet_verifier_pool_restarts_total counts it afterwards.
        """
        ending = await asyncio.shield(self._ending)
        if self._writer is not None:
            self._writer.close()
        return ending

    def close(self) -> None:
        """Called after its end or after `kill`, once its progress is no longer needed."""
        if self._writer is not None:
            self._writer.close()
        self._page.close()

    def _write(self, message: object) -> None:
        assert self._writer is not None
        body = _encoder.encode(message)
        self._writer.write(HEADER.pack(len(body)) + body)
