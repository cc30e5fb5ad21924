"""A grader process: takes chunks of tasks from the pool, grades them one by one, and may be killed at any moment.

Forked from verifier.pool.fork_server with what it needs already imported. It ends when the pool closes the socket, and the
kernel ends it when its parent dies, even in the middle of a loop in C.
"""

import ctypes
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping

import msgspec

from verifier.grader import Grader, ScoringFault, build_grader, load_grader
from verifier.pool.protocol import HEADER, LOADING, Hello, ProgressPage, Result, Task

FLUSH_S = 0.05  # results older than this are sent before the chunk is done: a kill costs no more work than that
DETAIL_CHARACTERS = 500
PR_SET_PDEATHSIG = 1

_encoder = msgspec.json.Encoder()
_chunk_decoder = msgspec.json.Decoder(tuple[int, list[Task]])


def serve(pool: socket.socket, page: ProgressPage) -> None:
    """Until the pool closes the socket."""
    hello = receive(pool)
    if hello is None:
        return
    told = msgspec.json.decode(hello, type=Hello)
    # What takes too much becomes a MemoryError, of one response, before it takes the machine.
    resource.setrlimit(resource.RLIMIT_AS, (told.memory_bytes, told.memory_bytes))
    grade = Grading(page, told.locations)
    send(pool, [])
    while (message := receive(pool)) is not None:
        chunk, tasks = _chunk_decoder.decode(message)
        results: list[Result] = []
        flushed_s = time.monotonic()
        for index, task in enumerate(tasks):
            results.append(grade(chunk, index, task))
            if time.monotonic() - flushed_s > FLUSH_S:
                send(pool, results)
                results, flushed_s = [], time.monotonic()
        if results:
            send(pool, results)


class Grading:
    """The graders this process has loaded."""

    def __init__(self, page: ProgressPage, locations: Mapping[str, str]) -> None:
        self._page, self._locations = page, locations
        self._classes: dict[str, type[Grader] | Exception] = {}
        self._plain: dict[str, Grader] = {}  # without options, which is nearly always

    def __call__(self, chunk: int, index: int, task: Task) -> Result:
        start_s = time.monotonic()
        if task.grader not in self._classes:
            self._page.write(chunk, index + LOADING, start_s, time.process_time())
            self._classes[task.grader] = self._load(task.grader)
            start_s = time.monotonic()
        self._page.write(chunk, index, start_s, time.process_time())
        try:
            outcome, reward, detail = self._judge(task)
        except ScoringFault as fault:
            outcome, reward, detail = "error", 0.0, str(fault)
        except MemoryError:
            outcome, reward, detail = "memory", 0.0, "it needs more memory than a grader process may use"
        except Exception as fault:
            # The one place that may catch everything: whatever a grader raises is a verdict of its own, `error`.
            outcome, reward, detail = "error", 0.0, f"grader {task.grader} failed: {type(fault).__name__}: {fault}"
        return Result(outcome, reward, detail[:DETAIL_CHARACTERS], time.monotonic() - start_s)  # type: ignore[arg-type]

    def _judge(self, task: Task) -> tuple[str, float, str]:
        grader = self._built(task)
        if task.response is None:
            grader.check(task.reference)
            return "correct", 1.0, ""
        judgement = grader.score(task.response, task.reference)
        reward = float(judgement.correct if judgement.reward is None else judgement.reward)
        if not math.isfinite(reward):
            raise ScoringFault(f"grader {task.grader} gave the reward {reward}")
        return "correct" if judgement.correct else "incorrect", reward, judgement.detail

    def _load(self, grader: str) -> type[Grader] | Exception:
        if grader not in self._locations:
            return ScoringFault(f"unknown grader {grader}; known: {', '.join(sorted(self._locations))}")
        try:
            loaded = load_grader(self._locations[grader])
            if not issubclass(loaded, Grader):
                return ScoringFault(f"grader {grader} does not run in a grader process: its lane is {loaded.lane}")
            loaded.warm_up()
            return loaded
        except Exception as fault:
            return ScoringFault(f"grader {grader} cannot be loaded: {type(fault).__name__}: {fault}")

    def _built(self, task: Task) -> Grader:
        if not task.options and (ready := self._plain.get(task.grader)):
            return ready
        grader_class = self._classes[task.grader]
        if isinstance(grader_class, Exception):
            raise grader_class
        grader = build_grader(grader_class, task.options)
        if not task.options:
            self._plain[task.grader] = grader
        return grader


def settle_in(parent: int) -> None:
    """What a process that may be killed at any moment does first."""
    # The kernel kills it when its parent dies. On systems other than Linux the closed socket has to do.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Whoever stops the service decides when its graders stop: an interrupt on the terminal reaches all processes at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def send(pool: socket.socket, results: list[Result]) -> None:
    message = _encoder.encode(results)
    pool.sendall(HEADER.pack(len(message)) + message)


def receive(pool: socket.socket) -> bytearray | None:
    """None: the pool has closed the socket."""
    header = receive_exactly(pool, HEADER.size)
    return None if header is None else receive_exactly(pool, HEADER.unpack(header)[0])


def receive_exactly(pool: socket.socket, size: int) -> bytearray | None:
    message = bytearray(size)
    view = memoryview(message)
    while view:
        received = pool.recv_into(view)
        if received == 0:
            return None
        view = view[received:]
    return message
