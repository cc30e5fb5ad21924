"""The pool's end of the grader processes: have one forked, talk to it, see how far it is, kill it.

Plain child processes rather than members of ProcessPoolExecutor, which can neither kill one of its own nor say what it
was working on. SIGKILL ends also a loop in C that ignores every other signal.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from services.clock import now_s
from services.errors import ServiceFailed
from verifier.pool.protocol import HEADER, PAGE_BYTES, Hello, Progress, ProgressPage, Result, Task

START_DEADLINE_S = 60.0  # takes 0.2 s on an idle machine; the machine may be very busy when a run starts
# One process, one core: numpy's threads would compete with training, and forking a process with threads is not safe.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MESSAGE_BYTES = 4096

_encoder = msgspec.json.Encoder()
_results_decoder = msgspec.json.Decoder(list[Result])


class ForkServer:
    """Where grader processes come from. One that has died is replaced at the next need; its children die with it."""

    def __init__(self, locations: Mapping[str, str], memory_bytes: int, environment: Mapping[str, str]) -> None:
        """locations: grader -> module:class. memory_bytes: address space of each grader process. environment: added to
        that of this process."""
        self._hello = Hello(dict(locations), memory_bytes)
        self._environment = dict(environment)
        self._ready: list[str] = []  # places of the graders that a grader process has imported, and lived
        self._starting = asyncio.Lock()
        self._running: _Running | None = None

    async def grow(self) -> "GraderProcess":
        """One more grader process. Raises ServiceFailed when it does not come up."""
        ours, theirs = socket.socketpair()
        page_fd = _page_file()
        try:
            page = ProgressPage(page_fd)
            async with self._starting:
                pid, ending = await self._fork(theirs.fileno(), page_fd)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(page_fd)
        process = GraderProcess(pid, ending, page)
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await process.connect(ours, self._hello)
        except (TimeoutError, EOFError) as fault:
            process.kill()
            raise ServiceFailed(f"a grader process did not come up ({await process.ended()})") from fault
        except BaseException:
            process.kill()
            raise
        return process

    def warm_up(self, grader: str) -> None:
        """A grader process has imported this grader: those to come have it from the start."""
        location = self._hello.locations[grader]
        if location not in self._ready:
            self._ready.append(location)
            if self._running is not None:
                self._running.say(f"ready {location}")

    def close(self) -> None:
        if self._running is not None:
            self._running.close()

    async def _fork(self, socket_fd: int, page_fd: int) -> "tuple[int, asyncio.Future[str]]":
        if self._running is None or self._running.gone.done():
            self._running = _Running(self._environment)
            for location in self._ready:
                self._running.say(f"ready {location}")
        running = self._running
        running.say("grow", socket_fd, page_fd)
        started = asyncio.ensure_future(running.started.get())
        waiting: set[asyncio.Future[Any]] = {started, running.gone}
        await asyncio.wait(waiting, timeout=START_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            return started.result()
        started.cancel()
        running.close()
        self._ready.clear()  # should one of them be what ended it, the next one comes up
        raise ServiceFailed(
            f"no grader process was started within {START_DEADLINE_S:.0f} s; "
            f"run `{sys.executable} -c 'import verifier.pool.fork_server'` to see why"
        )


class _Running:
    """One life of the fork server."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "verifier.pool.fork_server", str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a grader that prints does not write into the service's log
                env=os.environ | THREADS | dict(environment) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.started: asyncio.Queue[tuple[int, asyncio.Future[str]]] = asyncio.Queue()
        self._endings: dict[int, asyncio.Future[str]] = {}
        self._loop.add_reader(self._control, self._listen)

    def say(self, message: str, *descriptors: int) -> None:
        with suppress(OSError):  # it is dead, and whoever waits for it learns so from `gone`
            socket.send_fds(self._control, [message.encode()], descriptors)

    def close(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
            self._loop.remove_reader(self._control)
            self._control.close()
            self._child.kill()
            self._child.wait()
            for ending in self._endings.values():  # the kernel ends its children with it
                ending.set_result("signal SIGKILL")

    def _listen(self) -> None:
        try:
            message = self._control.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        match message.decode().split():
            case ["started", pid]:
                self._endings[int(pid)] = self._loop.create_future()
                self.started.put_nowait((int(pid), self._endings[int(pid)]))
            case ["ended", pid, code]:
                self._endings.pop(int(pid)).set_result(_ending(int(code)))
            case _:
                self.close()


class GraderProcess:
    """Made by ForkServer.grow."""

    def __init__(self, pid: int, ending: "asyncio.Future[str]", page: ProgressPage) -> None:
        self.pid = pid
        self._ending, self._page = ending, page
        self.killed_s: float | None = None
        """When the pool killed it, monotonic; None: it has ended by itself, or not yet."""
        self.killed_cpu_s = 0.0
        """CPU time that it had used by then."""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, ours: socket.socket, hello: Hello) -> None:
        """Raises EOFError when the process has ended."""
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._write(hello)
        await self.receive()  # an empty answer: it listens

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

    def cpu_s(self) -> float:
        """CPU time that it has used so far; 0 where the system does not tell, or once it has ended."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # its process clock, as clock_getcpuclockid makes it
        except OSError:
            return 0.0

    def make_way(self) -> None:
        """Let the others have the processor first, from now on."""
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, 10)

    def kill(self) -> None:
        """Results already sent can still be received; then comes EOFError."""
        if self.killed_s is None:
            self.killed_s, self.killed_cpu_s = now_s(), self.cpu_s()
        if not self._ending.done():  # until then the number belongs to this process, dead or alive
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """Wait for its end and say how it came; after kill or EOFError."""
        ending = await asyncio.shield(self._ending)
        if self._writer is not None:
            self._writer.close()
        return ending

    def close(self) -> None:
        """After its end, and once nobody asks for its progress any more."""
        self._page.close()

    def _write(self, message: object) -> None:
        assert self._writer is not None
        body = _encoder.encode(message)
        self._writer.write(HEADER.pack(len(body)) + body)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _page_file() -> int:
    """A file descriptor for the progress page; in memory where the system offers that."""
    if sys.platform == "linux":
        page_fd = os.memfd_create("ratchet-progress")
    else:
        with tempfile.TemporaryFile() as file:
            page_fd = os.dup(file.fileno())
    os.ftruncate(page_fd, PAGE_BYTES)
    return page_fd
