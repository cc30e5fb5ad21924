"""Metrics that more than one room sets."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge

from services.clock import now_s

WAIT_SECONDS = Counter(
    "ratchet_wait_seconds",
    "Seconds spent blocked, by room and by what was awaited. The largest share is the bottleneck.",
    ["room", "awaiting"],
)
STREAM_WAITING = Gauge("ratchet_stream_waiting_groups", "Groups on a stream that nobody has claimed yet.", ["stream"])
STREAM_PENDING = Gauge(
    "ratchet_stream_pending_groups", "Groups on a stream that are claimed and not handed over.", ["stream"]
)


@contextmanager
def waiting(room: str, awaiting: str) -> Iterator[None]:
    """Count the time inside as spent blocked on `awaiting`."""
    start = now_s()
    try:
        yield
    finally:
        WAIT_SECONDS.labels(room, awaiting).inc(now_s() - start)
