"""vLLM's metrics with histograms that cost the engine's thread little.

vLLM observes the time of every single token, and each observation takes two locks and a walk over the buckets: a fortieth of the
thread that samples with a small model. Here it is noted, and sorted into buckets when somebody reads the metrics.
"""

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from prometheus_client import Histogram
from vllm.v1.metrics.loggers import PrometheusStatLogger

MAX_NOTED = 1 << 16
"""Observations that are kept before they are sorted, whether anybody reads them or not: half a MiB and more."""


class NotingHistogram(Histogram):
    """A histogram that sorts what it observed into its buckets when it is read, and shows the same figures."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._noted: deque[float] = deque()
        self._sorting = threading.Lock()

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Note the amount. An exemplar is left out: vLLM gives none."""
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        self._noted.append(amount)
        if len(self._noted) >= MAX_NOTED:
            self._sort()

    def _sort(self) -> None:
        with self._sorting:  # whoever reads, and the engine's thread
            amounts = [self._noted.popleft() for _ in range(len(self._noted))]
            for bucket, count in Counter(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
                self._buckets[bucket].inc(count)
            self._sum.inc(sum(amounts))

    def _child_samples(self) -> Iterable[Any]:
        self._sort()
        return super()._child_samples()


class EngineMetrics(PrometheusStatLogger):
    """vLLM's own metrics, under their own names."""

    _histogram_cls = NotingHistogram
