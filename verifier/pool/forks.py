"""The pool's end of the fork server: where grader processes come from.

One fork server has the graders imported and forks a process in milliseconds; fork_server.py is its other end. When it dies,
the kernel ends its children, and the next need starts another one.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from services.errors import ServiceFailed
from services.metrics import waiting
from verifier.pool.process import GraderProcess
from verifier.pool.protocol import PAGE_BYTES, Hello, ProgressPage

START_DEADLINE_S = 60.0  # takes 0.2 s on an idle machine; the machine may be very busy when a run starts
# One process, one core: numpy's threads would compete with training, and forking a process with threads is not safe.
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MESSAGE_BYTES = 4096


class ForkServer:
    """Makes grader processes. A fork server that has died is replaced when the next process is needed."""

    def __init__(self, locations: Mapping[str, str], memory_bytes: int, environment: Mapping[str, str]) -> None:
        """locations: grader -> module:class. memory_bytes: address space of each grader process. environment: added to
        that of this process."""
        self._hello = Hello(dict(locations), memory_bytes)
        self._environment = dict(environment)
        self._ready: list[str] = []  # places of the graders that a grader process has imported and survived
        self._starting = asyncio.Lock()
        self._running: _Running | None = None

    async def grow(self) -> GraderProcess:
        """One more grader process. Raises ServiceFailed when it does not come up.

        Waits for: the fork server to fork, and the new process to answer.
        Until: START_DEADLINE_S for each of the two.
        Ended by: the process's first message, or its end.
        Metric: ratchet_waiting{room="verifier", awaiting="grader process"}.
        """
        with waiting("verifier", "grader process"):
            return await self._grow()

    def warm_up(self, grader: str) -> None:
        """A grader process has imported this grader and survived: later processes start with it imported."""
        location = self._hello.locations[grader]
        if location not in self._ready:
            self._ready.append(location)
            if self._running is not None:
                self._running.say(f"ready {location}")

    def close(self) -> None:
        if self._running is not None:
            self._running.close()

    async def _grow(self) -> GraderProcess:
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
            how = await process.ended()
            process.close()
            raise ServiceFailed(f"a grader process did not come up ({how})") from fault
        except BaseException:
            process.kill()
            process.close()
            raise
        return process

    async def _fork(self, socket_fd: int, page_fd: int) -> "tuple[int, asyncio.Future[str]]":
        if self._running is None or self._running.gone.done():
            self._running = _Running(self._environment)
            for location in self._ready:
                self._running.say(f"ready {location}")
        running = self._running
        running.say("grow", socket_fd, page_fd)
        started = asyncio.ensure_future(running.started.get())
        awaited: set[asyncio.Future[Any]] = {started, running.gone}
        await asyncio.wait(awaited, timeout=START_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            return started.result()
        started.cancel()
        running.close()
        self._ready.clear()  # if one of them ended it, the next one comes up
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
        with suppress(OSError):  # it is dead, which `gone` tells
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


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _page_file() -> int:
    """A file descriptor for the progress page, in memory where the system supports it."""
    if sys.platform == "linux":
        page_fd = os.memfd_create("ratchet-progress")
    else:
        with tempfile.TemporaryFile() as file:
            page_fd = os.dup(file.fileno())
    os.ftruncate(page_fd, PAGE_BYTES)
    return page_fd
