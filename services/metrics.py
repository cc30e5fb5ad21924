"""Metrics that more than one room sets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.clock import now_s

WAIT_SECONDS = Counter(
    "ratchet_wait_seconds",
    "Seconds spent blocked, by room and by what is awaited, waits in progress included. The largest share is the bottleneck.",
    ["room", "awaiting"],
    registry=None,  # _WaitSeconds exports it
)
WAITING = Gauge("ratchet_waiting", "Waits in progress now, by room and by what is awaited.", ["room", "awaiting"])
STREAM_WAITING = Gauge("ratchet_stream_waiting_groups", "Groups on a stream that nobody has claimed yet.", ["stream"])
STREAM_PENDING = Gauge(
    "ratchet_stream_pending_groups", "Groups on a stream that are claimed and not handed over.", ["stream"]
)


class _Wait:
    """One wait in progress: what it is for, and up to when WAIT_SECONDS has counted it."""

    def __init__(self, room: str, awaiting: str) -> None:
        self.labels = room, awaiting
        self.counted_until_s = now_s()

    def count(self) -> None:
        """Add what has passed since the last count."""
        now = now_s()
        WAIT_SECONDS.labels(*self.labels).inc(now - self.counted_until_s)
        self.counted_until_s = now


_in_progress: set[_Wait] = set()
_guard = threading.Lock()
"""For `_in_progress` and the waits in it: a scrape reads them in a thread of its own."""


class _WaitSeconds(Collector):
    """Exports WAIT_SECONDS, counting waits in progress first, so that a scrape in the midst of a long wait sees it."""

    def collect(self) -> Iterator[Metric]:
        with _guard:
            for wait in _in_progress:
                wait.count()
        yield from WAIT_SECONDS.collect()

    def describe(self) -> Iterator[Metric]:
        yield from WAIT_SECONDS.describe()


REGISTRY.register(_WaitSeconds())


@contextmanager
def waiting(room: str, awaiting: str) -> Iterator[None]:
    """Show the time inside as spent blocked on `awaiting`, while it lasts.

    `ratchet_waiting` is the number of such waits in progress; `ratchet_wait_seconds_total` grows during the wait, not only
    at its end. May be used in coroutines, and by several at once.
    """
    wait = _Wait(room, awaiting)
    WAITING.labels(room, awaiting).inc()
    with _guard:
        _in_progress.add(wait)
    try:
        yield
    finally:
        with _guard:
            _in_progress.remove(wait)
            wait.count()
        WAITING.labels(room, awaiting).dec()
