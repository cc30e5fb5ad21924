import asyncio
import itertools
import logging
import time

import pytest

from verifier.worker.retry import LAST_TRIES, LONGEST_PAUSE_S, Outage, sleep_unless


def test_pauses_grow_to_a_bound_and_end_a_few_tries_after_the_stop() -> None:
    stop = asyncio.Event()
    pauses = Outage("scoring", "the service", stop).pauses()
    first = list(itertools.islice(pauses, 20))
    assert all(0 < pause_s <= LONGEST_PAUSE_S for pause_s in first)
    assert max(first[:2]) <= 0.2
    assert min(first[-5:]) >= LONGEST_PAUSE_S / 2
    stop.set()
    assert len(list(pauses)) == LAST_TRIES


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        outage = Outage("scoring", "the service", asyncio.Event())
        outage.over()
        for _ in range(3):
            await outage.pause("refused", 0.0)
        outage.over()
        outage.over()

    with caplog.at_level(logging.WARNING, "ratchet.verifier"):
        asyncio.run(main())
    began, ended = (record.message for record in caplog.records)
    assert began == "the service is away: refused; trying until it is back"
    assert ended.startswith("the service is back after ")


def test_a_stop_ends_a_sleep() -> None:
    async def main() -> float:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        start_s = time.monotonic()
        await sleep_unless(stop, 60.0)
        return time.monotonic() - start_s

    assert asyncio.run(main()) < 30
