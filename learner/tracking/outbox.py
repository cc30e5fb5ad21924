"""Stands before a tracker, so that it can neither end nor slow the run: a thread, and a queue with a bound.

What the tracker raises is a warning, once; after LAST_FAILURE failures in a row nothing more is sent. Figures that do not fit
into the queue are left out, which is a warning, too.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping

from learner.tracking.tracker import Tracker

log = logging.getLogger("ratchet.learner")

MOST_QUEUED = 1000
LAST_FAILURE = 5
CLOSE_S = 30.0
"""How long the tracker may take at the end of a run for what is queued."""
_Figures = tuple[int, Mapping[str, float]]


class Outbox:
    """A Tracker that passes everything on in a thread of its own, in which the tracker behind it is opened, too."""

    def __init__(
        self,
        name: str,
        open_tracker: Callable[[], Tracker],
        *,
        most_queued: int = MOST_QUEUED,
        close_s: float = CLOSE_S,
    ) -> None:
        """name: of the tracker, in words for a warning."""
        self._name = name
        self._open = open_tracker
        self._close_s = close_s
        self._queue: queue.Queue[_Figures | None] = queue.Queue(most_queued)
        self._warned_of_full = False
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._send, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Queue the figures; returns at once, and raises nothing."""
        if self._given_up.is_set():
            return
        try:
            self._queue.put_nowait((step, figures))
        except queue.Full:
            if not self._warned_of_full:
                log.warning("%s does not keep up: figures from step %d on are left out there", self._name, step)
                self._warned_of_full = True

    def close(self) -> None:
        """Let the tracker finish.

        Waits for: the tracker to take what is queued.
        Until: close_s (30 s); then a warning says that figures may be missing there.
        Ended by: the end of the thread, or the deadline.
        Metric: none; it is the end of the run.
        """
        if not self._given_up.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=self._close_s)
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            log.warning(
                "%s did not finish within %.0f s; its last figures may be missing there", self._name, self._close_s
            )

    def _send(self) -> None:
        """Open the tracker and pass on what comes, until it is closed.

        Waits for: figures, and the tracker.
        Until: it is closed; there is no deadline.
        Ended by: `close`, or LAST_FAILURE failures in a row.
        Metric: none; the learner works while the thread waits.
        """
        try:
            tracker = self._open()
        except BaseException as fault:  # trackers end with SystemExit, too
            log.warning("%s cannot be used: %s; the run goes on without it", self._name, _words(fault))
            self._given_up.set()
            return
        failures = 0
        while (figures := self._queue.get()) is not None:
            try:
                tracker.log(*figures)
                failures = 0
            except BaseException as fault:
                failures += 1
                if failures == 1:
                    log.warning("%s failed: %s; the run goes on", self._name, _words(fault))
                if failures == LAST_FAILURE:
                    log.warning("%s failed %d times in a row; nothing more is sent to it", self._name, failures)
                    self._given_up.set()
                    break
        try:
            tracker.close()
        except BaseException as fault:
            log.warning("%s could not be closed: %s", self._name, _words(fault))


def _words(fault: BaseException) -> str:
    first = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {first[0]}" if first else type(fault).__name__
