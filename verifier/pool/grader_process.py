"""A grader process: takes chunks of tasks from the pool, grades them one by one, and may be killed at any moment.

Forked from verifier.pool.fork_server with what it needs already imported. It ends when the pool closes the socket, and the
kernel ends it when its parent dies, even in the middle of a loop in C.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping

import msgspec

from services.wire.verdict import Score
from verifier.grader import Grader, Judgment, ScoringFault, build_grader, load_grader
from verifier.pool.protocol import HEADER, LOADING, GradeResult, GradeTask, Hello, ProgressPage
from verifier.scores import no_verdict, scored

FLUSH_S = 0.05  # results older than this are sent before the chunk is done: a kill costs no more work than that
PR_SET_PDEATHSIG = 1

_encoder = msgspec.json.Encoder()
_chunk_decoder = msgspec.json.Decoder(tuple[int, list[GradeTask]])


def serve(pool: socket.socket, page: ProgressPage) -> None:
    """Grades until the pool closes the socket.

    Waits for: chunks from the pool.
    Until: it is stopped.
    Ended by: a chunk, or the pool closing the socket.
    Metric: ratchet_waiting{room="verifier", awaiting="responses"}, which the pool sets for its idle processes.
    """
    hello = receive(pool)
    if hello is None:
        return
    told = msgspec.json.decode(hello, type=Hello)
    # A response that needs too much gets a MemoryError of its own before it takes the machine.
    resource.setrlimit(resource.RLIMIT_AS, (told.memory_bytes, told.memory_bytes))
    graders = LoadedGraders(page, told.locations)
    send(pool, [])
    while (message := receive(pool)) is not None:
        chunk, tasks = _chunk_decoder.decode(message)
        results: list[GradeResult] = []
        flushed_s = time.monotonic()
        for index, task in enumerate(tasks):
            results.append(graders.grade(chunk, index, task))
            if time.monotonic() - flushed_s > FLUSH_S:
                send(pool, results)
                results, flushed_s = [], time.monotonic()
        if results:
            send(pool, results)


class LoadedGraders:
    """The graders that this process has imported, each at its first task."""

    def __init__(self, page: ProgressPage, locations: Mapping[str, str]) -> None:
        """page: where the pool sees what is being graded. locations: grader -> module:class."""
        self._page = page
        self._locations = locations
        self._classes: dict[str, type[Grader] | ScoringFault] = {}
        self._without_options: dict[str, Grader] = {}  # nearly all tasks have none

    def grade(self, chunk: int, index: int, task: GradeTask) -> GradeResult:
        name = task.item.grader
        start_s = time.monotonic()
        if name not in self._classes:
            self._page.write(chunk, index + LOADING, start_s, time.process_time())
            self._classes[name] = self._load(name)
            start_s = time.monotonic()
        self._page.write(chunk, index, start_s, time.process_time())

        def elapsed_s() -> float:
            return time.monotonic() - start_s

        try:
            return GradeResult(self._score(task, start_s))
        except ScoringFault as fault:
            return GradeResult(no_verdict(str(fault), elapsed_s()))
        except MemoryError:
            fault_ = no_verdict("it needs more memory than a grader process may use", elapsed_s())
            return GradeResult(fault_, out_of_memory=True)
        except Exception as fault:
            # The one place that may catch everything: any exception of a grader is an `error` of that response.
            return GradeResult(no_verdict(f"grader {name} failed: {type(fault).__name__}: {fault}", elapsed_s()))

    def _score(self, task: GradeTask, start_s: float) -> Score:
        grader, item = self._built(task), task.item
        if task.reference_only:
            grader.check(item.reference)
            judgment = Judgment(True)
        else:
            judgment = grader.score(item.response, item.reference)
        return scored(judgment, time.monotonic() - start_s)

    def _load(self, name: str) -> type[Grader] | ScoringFault:
        if name not in self._locations:
            return ScoringFault(f"unknown grader {name}; known: {', '.join(sorted(self._locations))}")
        try:
            loaded = load_grader(self._locations[name])
            if not issubclass(loaded, Grader):
                return ScoringFault(f"grader {name} does not run in a grader process: its lane is {loaded.lane}")
            loaded.warm_up()
            return loaded
        except Exception as fault:
            return ScoringFault(f"grader {name} cannot be loaded: {type(fault).__name__}: {fault}")

    def _built(self, task: GradeTask) -> Grader:
        name, options = task.item.grader, task.item.options
        if not options and (built := self._without_options.get(name)):
            return built
        grader_class = self._classes[name]
        if isinstance(grader_class, ScoringFault):
            raise grader_class
        grader = build_grader(grader_class, options)
        if not options:
            self._without_options[name] = grader
        return grader


def settle_in(parent: int) -> None:
    """Prepares a process that may be killed at any moment. Called before anything else."""
    # The kernel kills it when its parent dies. On systems other than Linux the closed socket has to do.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The service decides when its graders stop: an interrupt on the terminal reaches all processes at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def send(pool: socket.socket, results: list[GradeResult]) -> None:
    message = _encoder.encode(results)
    pool.sendall(HEADER.pack(len(message)) + message)


def receive(pool: socket.socket) -> bytearray | None:
    """The next message; None when the pool has closed the socket."""
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
