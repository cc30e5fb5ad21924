"""Metrics that more than one room sets."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from services.clock import now_s

WAIT_SECONDS = Counter(
    "ratchet_wait_seconds",
    "Seconds spent blocked, by room and by what is awaited, waits in progress included. The largest share is the bottleneck.",
    ["room", "awaiting"],
    registry=None,  # _UpToDate exports it
)
BUSY_SECONDS = Counter(
    "ratchet_busy_seconds",
    "Seconds at work, work in progress included: a learner step or checkpoint, at least one sequence in an engine, at least "
    "one response being graded. 1 minus its rate is the idle ratio.",
    ["room"],
    registry=None,  # _UpToDate exports it
)
WAITING = Gauge("ratchet_waiting", "Waits in progress now, by room and by what is awaited.", ["room", "awaiting"])
STREAM_WAITING = Gauge("ratchet_stream_waiting_groups", "Groups on a stream that nobody has claimed yet.", ["stream"])
STREAM_PENDING = Gauge(
    "ratchet_stream_pending_groups", "Groups on a stream that are claimed and not handed over.", ["stream"]
)
STREAM_OLDEST_SECONDS = Gauge(
    "ratchet_stream_oldest_age_seconds",
    "Age of the oldest group on a stream, claimed ones included; 0 when the stream is empty.",
    ["stream"],
)
DEAD_GROUPS = Counter(
    "ratchet_dead_groups",
    "Groups that went to the stream dead, by the room that gave them up and by cause: unreadable, undeliverable (claimed "
    "too often), refused (by the engine), empty, no_verdict (error or timeout in every attempt).",
    ["room", "cause"],
)
CAUSES_OF_DEATH = {
    "learner": ("unreadable",),
    "rollout": ("unreadable", "undeliverable", "refused"),
    "verifier": ("unreadable", "undeliverable", "empty", "no_verdict"),
}
"""By room: what DEAD_GROUPS may say."""


def begin_dead_groups(room: str) -> None:
    """Show every cause of this room at 0: the first death is then an increase."""
    for cause in CAUSES_OF_DEATH[room]:
        DEAD_GROUPS.labels(room, cause)


class _Span:
    """Time in progress: which counter it goes to, and up to when it has been counted."""

    def __init__(self, counter: Counter, *labels: str) -> None:
        self._counter = counter.labels(*labels)
        self._counted_until_s = now_s()

    def count(self) -> float:
        """Add what has passed since the last count; returns it, in seconds."""
        now = now_s()
        seconds = now - self._counted_until_s
        self._counter.inc(seconds)
        self._counted_until_s = now
        return seconds


_in_progress: set[_Span] = set()
_guard = threading.Lock()
"""For `_in_progress` and the spans in it: a scrape reads them in a thread of its own."""


class _UpToDate(Collector):
    """Exports WAIT_SECONDS and BUSY_SECONDS, counting what is in progress first: a scrape in the midst of a long wait sees it."""

    def collect(self) -> Iterator[Metric]:
        with _guard:
            for span in _in_progress:
                span.count()
        yield from WAIT_SECONDS.collect()
        yield from BUSY_SECONDS.collect()

    def describe(self) -> Iterator[Metric]:
        yield from WAIT_SECONDS.describe()
        yield from BUSY_SECONDS.describe()


REGISTRY.register(_UpToDate())


@contextmanager
def waiting(room: str, awaiting: str) -> Iterator[None]:
    """Show the time inside as spent blocked on `awaiting`, while it lasts.

    `ratchet_waiting` is the number of such waits in progress; `ratchet_wait_seconds_total` grows during the wait, not only
    at its end. May be used in coroutines, and by several at once.
    """
    wait = _Span(WAIT_SECONDS, room, awaiting)
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


class BusyTime:
    """How long at least one piece of work was in progress, counted once however many there are. May be used from threads."""

    def __init__(self, room: str) -> None:
        """room: the label of `ratchet_busy_seconds_total`."""
        self._room = room
        self._pieces = 0
        self._span: _Span | None = None
        self._since_s = 0.0
        self._seconds = 0.0
        BUSY_SECONDS.labels(room)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show the time inside as spent at work."""
        with _guard:
            self._pieces += 1
            if self._span is None:
                self._since_s = now_s()
                self._span = _Span(BUSY_SECONDS, self._room)
                _in_progress.add(self._span)
        try:
            yield
        finally:
            with _guard:
                self._pieces -= 1
                if self._pieces == 0 and self._span is not None:
                    _in_progress.remove(self._span)
                    self._span.count()
                    self._seconds += now_s() - self._since_s
                    self._span = None

    def seconds(self) -> float:
        """Seconds at work so far, work in progress included."""
        with _guard:
            return self._seconds + (now_s() - self._since_s if self._span is not None else 0.0)


class CountedHistogram(Collector):
    """A histogram that takes many equal observations at once, such as the tokens of a step that have the same lag."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        """buckets: upper bounds, ascending; one without a bound follows."""
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._changing = threading.Lock()
        REGISTRY.register(self)

    def observe(self, value: float, count: int) -> None:
        """Add `count` observations of `value`, which is not negative."""
        place = next((i for i, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        with self._changing:
            self._counts[place] += count
            self._sum += value * count

    def collect(self) -> Iterator[Metric]:
        with self._changing:
            counts, total = list(self._counts), self._sum
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        below = [(name, sum(counts[: i + 1])) for i, name in enumerate(names)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets=below, sum_value=total)

    def describe(self) -> Iterator[Metric]:
        yield HistogramMetricFamily(self._name, self._documentation)
