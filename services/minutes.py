"""The line that a service without steps logs each minute: what its counters have grown by since the line before."""

import asyncio
import logging
from collections import Counter as Counts
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from prometheus_client import Counter, Gauge

from services.clock import now_s
from services.log_lines import with_fields
from services.numbers import count

MINUTE_S = 60.0


def total(metric: Counter | Gauge) -> float:
    """The sum over the labels of a metric."""
    return sum(totals(metric).values())


def totals(metric: Counter | Gauge) -> Counts[str]:
    """The values of a metric, by its first label; the only one has the name ""."""
    found: Counts[str] = Counts()
    for family in metric.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[next(iter(sample.labels.values()), "")] += sample.value  # type: ignore[assignment]
    return found


class Growth:
    """How much counters have grown since the last look."""

    def __init__(self, **counters: Counter) -> None:
        self._counters = counters
        self._before = self._now()

    def _now(self) -> dict[str, Counts[str]]:
        return {name: totals(counter) for name, counter in self._counters.items()}

    def look(self) -> dict[str, Counts[str]]:
        """Name -> what was added by first label, without what did not grow."""
        now = self._now()
        grown = {name: counts - self._before[name] for name, counts in now.items()}
        self._before = now
        return grown


Say = Callable[[float], tuple[str, dict[str, Any]]]
"""Seconds since the last line -> the line in words, and its figures."""


async def log_each_minute(
    log: logging.Logger,
    say: Say,
    stop: asyncio.Event,
    *,
    quiet: Callable[[dict[str, Any]], bool],
    every_s: float = MINUTE_S,
) -> None:
    """Log a line a minute until `stop`. quiet: whether the figures say that nothing happens; of quiet minutes in a row the first
    alone has a line.

    Waits for: time to pass.
    Until: every_s (a minute) each time.
    Ended by: the time, or `stop`.
    Metric: none; nobody waits for it.
    """
    was_quiet, began_s = False, now_s()
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
        if stop.is_set():
            return
        words, figures = say(now_s() - began_s)
        began_s = now_s()
        is_quiet = quiet(figures)
        if not (is_quiet and was_quiet):
            log.info("%s", words, extra=with_fields(**figures))
        was_quiet = is_quiet


def counted(counts: Counts[str]) -> str:
    """Such as "12 correct, 3 incorrect"; "nothing" for none."""
    return ", ".join(f"{count(many)} {name}" for name, many in counts.most_common()) or "nothing"
