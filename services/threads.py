"""Work that may hang, in a thread that nobody has to wait for."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_Piece = tuple[Callable[[], Any], Future[Any], threading.Event]
"""The work, what comes of it, and that it has begun."""


def in_daemon_thread(work: Callable[[], T], name: str) -> "Future[T]":
    """Begin `work` in a thread that does not hold the process when it hangs, as one of an executor would."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()
    threading.Thread(target=_do, args=(work, outcome), name=name, daemon=True).start()
    return outcome


class LastingThread:
    """A daemon thread for one piece of work after the other. One that hangs keeps its thread, and the next gets another.

    For what is done again and again for weeks: of each thread that has moved bytes over gloo, 0.2 kB remain in the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[_Piece | None] | None = None  # of the thread now
        self._last: Future[Any] | None = None

    def begin(self, work: Callable[[], T]) -> "Future[T]":
        """Begin `work`, and return once it is begun. Called by one thread at a time.

        Waits for: the thread, which is idle, to take it up.
        Until: it has no deadline.
        Ended by: the thread's first line.
        Metric: none; it takes microseconds.
        """
        if self._last is not None and not self._last.done():
            self.end()
        if self._work is None:
            self._work = queue.SimpleQueue()
            threading.Thread(target=self._run, args=(self._work,), name=self._name, daemon=True).start()
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()
        self._last = outcome
        begun = threading.Event()
        self._work.put((work, outcome, begun))
        begun.wait()
        return outcome

    def end(self) -> None:
        """End the thread once it has done what it is at. The next piece of work gets another."""
        if self._work is not None:
            self._work.put(None)
            self._work = None

    @staticmethod
    def _run(pieces: "queue.SimpleQueue[_Piece | None]") -> None:
        """Do what is given, in order.

        Waits for: the next piece of work.
        Until: it has no deadline.
        Ended by: a piece of work, or `end`.
        Metric: none; it is idle.
        """
        while (piece := pieces.get()) is not None:
            work, outcome, begun = piece
            begun.set()
            _do(work, outcome)
            del piece, work, outcome  # or what they hold is held until the next one


def _do(work: Callable[[], T], outcome: "Future[T]") -> None:
    try:
        result = work()
    except BaseException as fault:
        outcome.set_exception(fault)
    else:
        outcome.set_result(result)
