"""A thread that does the intake's work while the training loop is at its own: computing a step, publishing, saving.

    begin ──▶ look, look, look, ... ──▶ pause ──▶ begin ──▶ ... ──▶ close

It looks or the loop does, never both. A fault ends the looks and is kept for the loop, which raises it.
"""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("ratchet.learner")

LOOK_S = 0.05
"""Longest that one look may wait for what arrives: so long may the loop have to wait until it can look itself."""


class Ahead:
    """Looks again and again on a thread of its own, except while it is paused. It begins paused."""

    def __init__(self, look: Callable[[], bool]) -> None:
        """look: one look, which waits for LOOK_S at most; False: nothing more is to be looked for until `begin`."""
        self._look = look
        # Guarded by _changed.
        self._changed = threading.Condition()
        self._wanted = False
        self._looking = False
        self._closed = False
        self._fault: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Look from now on, unless a look has failed or it is closed."""
        with self._changed:
            self._wanted = self._fault is None and not self._closed
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def pause(self) -> bool:
        """Look no more, and return once no look is in progress: whether it was looking.

        Waits for: the look in progress on the thread.
        Until: it has no deadline of its own; a look lasts 0.05 s, and deadlines.redis_s where the stream server does not answer.
        Ended by: the end of the look: something has arrived, or its time is over.
        Metric: ratchet_waiting{room="learner", awaiting="scored groups"}, where groups are awaited.
        """
        with self._changed:
            wanted = self._wanted
            self._wanted = False
            while self._looking:
                self._changed.wait()
        return wanted

    def raise_fault(self) -> None:
        """Raise what has ended the looks, once."""
        with self._changed:
            fault = self._fault
            self._fault = None
        if fault is not None:
            raise fault

    def close(self) -> None:
        """End the thread. A fault that nobody has raised goes to the log."""
        self.pause()
        with self._changed:
            self._closed = True
            thread, fault = self._thread, self._fault
            self._fault = None
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        if fault is not None:
            log.warning("what was gathered ahead ended by %s", fault)

    def _run(self) -> None:
        """Look while that is wanted.

        Waits for: the loop to want it.
        Until: it has no deadline.
        Ended by: `begin` or `close`.
        Metric: none: nobody waits for it.
        """
        while True:
            with self._changed:
                self._looking = False
                self._changed.notify_all()
                while not self._wanted and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._looking = True
            try:
                goes_on = self._look()
            except BaseException as fault:  # handed to the training loop, which raises it
                with self._changed:
                    self._fault = fault
                goes_on = False
            if not goes_on:
                with self._changed:
                    self._wanted = False
