"""The pool's end of one grader process: start it, talk to it, see how far it is, kill it.

A plain child process rather than a member of ProcessPoolExecutor, which can neither kill one of its own nor say what it
was working on. SIGKILL ends also a loop in C that ignores every other signal.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

import msgspec

from services.clock import now_s
from services.errors import ServiceFailed
from verifier.pipe import HEADER, PAGE_BYTES, Progress, ProgressPage, Result, Task

START_DEADLINE_S = 60.0  # takes 0.15 s on an idle machine; the machine may be very busy when a run starts
# One process, one core: numpy's threads would compete with training, and their stacks count against the memory limit.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_encoder = msgspec.msgpack.Encoder()
_results_decoder = msgspec.msgpack.Decoder(list[Result])


class GraderProcess:
    """Made by `start`."""

    def __init__(self, child: "subprocess.Popen[bytes]", page: ProgressPage) -> None:
        self._child, self._page = child, page
        self.killed_s: float | None = None
        """When the pool killed it, monotonic; None: it has ended by itself, or not yet."""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, graders: Mapping[str, str]) -> "GraderProcess":
        """graders: name -> module:class. Raises ServiceFailed when the process does not come up."""
        ours, theirs = socket.socketpair()
        page_fd = _page_file()
        try:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "verifier.grader_process"),
                    *(str(theirs.fileno()), str(page_fd), str(os.getpid())),
                ],
                pass_fds=(theirs.fileno(), page_fd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a grader that prints does not write into the service's log
                env=os.environ | THREADS | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            page = ProgressPage(page_fd)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(page_fd)
        process = cls(child, page)
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                process._reader, process._writer = await asyncio.open_connection(sock=ours)
                process._write(graders)
                await process.receive()  # an empty answer: it listens
        except (TimeoutError, EOFError) as fault:
            process.kill()
            ending = await process.ended()
            raise ServiceFailed(
                f"a grader process did not come up within {START_DEADLINE_S:.0f} s ({ending}); "
                f"run `{sys.executable} -c 'import verifier.grader_process'` to see why"
            ) from fault
        except BaseException:
            process.kill()
            child.wait()  # at once: it has hardly begun
            raise
        return process

    def send(self, chunk: int, tasks: Sequence[Task]) -> None:
        """Never blocks: what the process does not take yet waits in memory."""
        self._write((chunk, tasks))

    async def receive(self) -> list[Result]:
        """The next results, in the order of the tasks. Raises EOFError when the process has ended."""
        try:
            (size,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            return _results_decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as fault:
            raise EOFError("the grader process has ended") from fault

    def progress(self) -> Progress:
        return self._page.read()

    def kill(self) -> None:
        """Results already sent can still be received; then comes EOFError."""
        self.killed_s = now_s()
        self._child.kill()

    async def ended(self) -> str:
        """Wait for its end and say how it came; to be called once, after kill or EOFError."""
        # In a thread: a process that dies with gigabytes in hand takes its time.
        code = await asyncio.to_thread(self._child.wait)
        if hasattr(self, "_writer"):
            self._writer.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _write(self, message: object) -> None:
        body = _encoder.encode(message)
        self._writer.write(HEADER.pack(len(body)) + body)


def _page_file() -> int:
    """A file descriptor for the progress page; in memory where the system offers that."""
    if sys.platform == "linux":
        page_fd = os.memfd_create("ratchet-progress")
    else:
        with tempfile.TemporaryFile() as file:
            page_fd = os.dup(file.fileno())
    os.ftruncate(page_fd, PAGE_BYTES)
    return page_fd
