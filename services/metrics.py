"""Metrics that more than one room sets."""

import threading
import weakref
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
    "one response being graded.",
    ["room"],
    registry=None,  # _UpToDate exports it
)
IDLE_SECONDS = Counter(
    "ratchet_idle_seconds",
    "Seconds without such work, since the room could work. Its share of both is the idle ratio, also of a room that has just "
    "started.",
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
    "Seconds since the oldest group came to a stream, claimed ones included; 0 when the stream is empty.",
    ["stream"],
)
DEAD_GROUPS = Counter(
    "ratchet_dead_groups",
    "Groups that went to the stream dead, by the room that gave them up and by cause: unreadable, undeliverable (claimed "
    "too often), refused (by the engine), environment (it failed in every attempt), empty, "
    "no_verdict (error or timeout in every attempt), kills_learner (every step with it killed the learner).",
    ["room", "cause"],
)
CAUSES_OF_DEATH = {
    "learner": ("unreadable", "kills_learner"),
    "rollout": ("unreadable", "undeliverable", "refused", "environment"),
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
        self.begun_s = now_s()
        self._counted_until_s = self.begun_s

    def count(self) -> None:
        """Add what has passed since the last count."""
        now = now_s()
        self._counter.inc(now - self._counted_until_s)
        self._counted_until_s = now


_in_progress: "weakref.WeakSet[_Span]" = weakref.WeakSet()
"""A span ends with whoever holds it."""
_guard = threading.Lock()
"""For `_in_progress` and the spans in it: a scrape reads them in a thread of its own."""


class _UpToDate(Collector):
    """Exports what spans count, with what is in progress: a scrape in the midst of a long wait sees it."""

    counters = WAIT_SECONDS, BUSY_SECONDS, IDLE_SECONDS

    def collect(self) -> Iterator[Metric]:
        with _guard:
            for span in _in_progress:
                span.count()
        for counter in self.counters:
            yield from counter.collect()

    def describe(self) -> Iterator[Metric]:
        for counter in self.counters:
            yield from counter.describe()


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
        """Idle from now on. room: the label of `ratchet_busy_seconds_total` and `ratchet_idle_seconds_total`."""
        self._room = room
        self._pieces = 0
        self._busy_s = 0.0
        BUSY_SECONDS.labels(room)
        with _guard:
            self._span = _Span(IDLE_SECONDS, room)
            _in_progress.add(self._span)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Show the time inside as spent at work."""
        with _guard:
            self._pieces += 1
            if self._pieces == 1:
                self._turn_to(BUSY_SECONDS)
        try:
            yield
        finally:
            with _guard:
                self._pieces -= 1
                if self._pieces == 0:
                    self._busy_s += now_s() - self._span.begun_s
                    self._turn_to(IDLE_SECONDS)

    def seconds(self) -> float:
        """Seconds at work so far, work in progress included."""
        with _guard:
            return self._busy_s + (now_s() - self._span.begun_s if self._pieces else 0.0)

    def _turn_to(self, counter: Counter) -> None:
        """End one span and begin the next. Called under _guard."""
        self._span.count()
        _in_progress.discard(self._span)
        self._span = _Span(counter, self._room)
        _in_progress.add(self._span)


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
