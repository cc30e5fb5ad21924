"""Histograms that note first and sort later show what others show, and lose nothing."""

import random
import threading
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Histogram

from rollout.vllm.histograms import MAX_NOTED, EngineMetrics, NotingHistogram

BUCKETS = (0.1, 0.5, 1.0, 2.5)


def shown(histogram: Histogram) -> dict[tuple[str, str], float]:
    """Sample and upper bound -> value, without the time of creation, which is each one's own."""
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for metric in histogram.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def made(kind: type[Histogram]) -> tuple[Histogram, Histogram]:
    """The metric, and what observes for one engine."""
    metric = kind("seconds", "what it took", ["engine"], buckets=BUCKETS, registry=CollectorRegistry())
    return metric, metric.labels("0")


@pytest.mark.parametrize("amounts", [[], [0.1], [0.1, 0.5, 1.0, 2.5, 2.6, 0.0, -1.0, 1e9]])
def test_it_shows_what_the_librarys_own_shows(amounts: Iterable[float]) -> None:
    (plain, of_plain), (noting, of_noting) = made(Histogram), made(NotingHistogram)
    for amount in amounts:
        of_plain.observe(amount)
        of_noting.observe(amount)
    assert shown(noting) == shown(plain)
    of_plain.observe(0.7)
    of_noting.observe(0.7)
    assert shown(noting) == shown(plain)  # what was shown is not counted again


def test_as_with_the_librarys_own_labels_come_first() -> None:
    metric, _ = made(NotingHistogram)
    with pytest.raises(ValueError, match="label"):
        metric.observe(1.0)


def test_nothing_is_lost_while_others_read_and_little_is_held_where_nobody_reads() -> None:
    metric, one = made(NotingHistogram)
    amounts = [random.Random(thread).random() * 3 for thread in range(4)]
    each = MAX_NOTED // 2 + 123

    def observe(amount: float) -> None:
        for _ in range(each):
            one.observe(amount)

    threads = [threading.Thread(target=observe, args=(amount,)) for amount in amounts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        shown(metric)
    for thread in threads:
        thread.join()
    figures = shown(metric)
    assert figures["seconds_count", ""] == 4 * each
    assert figures["seconds_sum", ""] == pytest.approx(sum(amounts) * each)
    for _ in range(MAX_NOTED + 1):
        one.observe(0.2)
    assert len(one._noted) <= MAX_NOTED  # type: ignore[attr-defined]


def test_vllms_metrics_are_made_of_them() -> None:
    assert EngineMetrics._histogram_cls is NotingHistogram
