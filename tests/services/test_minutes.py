"""A line a minute: what counters have grown by, and no line for the second quiet minute in a row."""

import asyncio
import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from services.minutes import Growth, counted, log_each_minute


def test_growth_is_what_was_added_since_the_last_look() -> None:
    counter = Counter("told", "Told.", ["kind", "by"], registry=CollectorRegistry())
    counter.labels("good", "a").inc(3)
    growth = Growth(told=counter)
    counter.labels("good", "a").inc(2)
    counter.labels("good", "b").inc(1)
    counter.labels("bad", "b").inc(1)
    assert dict(growth.look()["told"]) == {"good": 3, "bad": 1}
    assert not growth.look()["told"]


def test_of_quiet_minutes_in_a_row_the_first_alone_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("ratchet.minutes_test")
    minutes = iter([5, 0, 0, 0, 7])

    async def run() -> None:
        stop = asyncio.Event()

        def say(_: float) -> tuple[str, dict[str, Any]]:
            count = next(minutes)
            if count == 7:
                stop.set()
            return f"{count} groups", {"groups": count}

        await log_each_minute(log, say, stop, quiet=lambda figures: not figures["groups"], every_s=0.001)

    with caplog.at_level(logging.INFO, logger=log.name):
        asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == ["5 groups", "0 groups", "7 groups"]
    assert caplog.records[0].fields == {"groups": 5}  # type: ignore[attr-defined]


def test_counts_are_told_in_words_the_most_frequent_first() -> None:
    from collections import Counter as Counts

    assert counted(Counts({"error": 1, "correct": 1200})) == "1,200 correct, 1 error"
    assert counted(Counts()) == "nothing"
