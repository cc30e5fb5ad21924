"""A wait is visible while it lasts."""

import asyncio
import threading

import pytest
from prometheus_client import REGISTRY, generate_latest

from services.clock import now_s, sleep
from services.metrics import BusyTime, CountedHistogram, waiting

LABELS = {"room": "tests", "awaiting": "the test"}


def seconds() -> float:
    return REGISTRY.get_sample_value("ratchet_wait_seconds_total", LABELS) or 0.0


def in_progress() -> float:
    return REGISTRY.get_sample_value("ratchet_waiting", LABELS) or 0.0


def test_a_wait_counts_while_it_lasts() -> None:
    before = seconds()
    with waiting("tests", "the test"):
        assert in_progress() == 1
        sleep(0.05)
        during = seconds()
        assert during - before >= 0.05
        sleep(0.02)
        assert seconds() - during >= 0.02
    after = seconds()
    assert in_progress() == 0
    sleep(0.02)
    assert seconds() == after


def test_the_total_never_falls_and_counts_each_second_once() -> None:
    begun_s, before = now_s(), seconds()
    end, seen = threading.Event(), [before]

    def wait_again_and_again() -> None:
        while not end.is_set():
            with waiting("tests", "the test"):
                sleep(0.001)

    thread = threading.Thread(target=wait_again_and_again)
    thread.start()
    for _ in range(200):
        seen.append(seconds())
        sleep(0.0005)
    end.set()
    thread.join()
    assert seen == sorted(seen)
    with waiting("tests", "the test"):
        sleep(0.03)
        assert seconds() >= seen[-1]
    assert seconds() - before <= now_s() - begun_s  # only one wait at a time: no more than has passed


def test_waits_of_coroutines_overlap_and_an_error_ends_its_own() -> None:
    async def wait(seconds: float) -> None:
        with waiting("tests", "the test"):
            await asyncio.sleep(seconds)
            raise TimeoutError

    async def both() -> None:
        first, second = asyncio.create_task(wait(0.02)), asyncio.create_task(wait(30.0))
        await asyncio.sleep(0.005)
        assert in_progress() == 2
        with pytest.raises(TimeoutError):
            await first
        assert in_progress() == 1
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    asyncio.run(both())
    assert in_progress() == 0


def test_a_scrape_shows_both() -> None:
    with waiting("tests", "the test"):
        page = generate_latest().decode()
    assert 'ratchet_waiting{awaiting="the test",room="tests"} 1.0' in page
    assert 'ratchet_wait_seconds_total{awaiting="the test",room="tests"}' in page


def busy_seconds() -> float:
    return REGISTRY.get_sample_value("ratchet_busy_seconds_total", {"room": "tests"}) or 0.0


def idle_seconds() -> float:
    return REGISTRY.get_sample_value("ratchet_idle_seconds_total", {"room": "tests"}) or 0.0


def test_work_that_overlaps_is_counted_once_and_while_it_lasts() -> None:
    before, idle_before = busy_seconds(), idle_seconds()
    busy, begun_s = BusyTime("tests"), now_s()
    with busy.working():
        with busy.working():
            sleep(0.03)
            assert busy_seconds() - before >= 0.03
        sleep(0.02)
        during = busy.seconds()
    assert 0.05 <= during <= busy.seconds() <= now_s() - begun_s
    assert busy_seconds() - before == pytest.approx(busy.seconds(), abs=0.01)
    after, idle_s = busy.seconds(), idle_seconds()
    sleep(0.02)
    assert busy.seconds() == after
    assert idle_seconds() - idle_s >= 0.02
    assert busy_seconds() - before + idle_seconds() - idle_before == pytest.approx(now_s() - begun_s, abs=0.01)


def test_equal_observations_are_counted_at_once() -> None:
    lags = CountedHistogram("tests_lag_steps", "Lag.", buckets=(0, 1, 4))
    lags.observe(0, 5)
    lags.observe(2, 3)
    lags.observe(9, 1)
    got = {le: REGISTRY.get_sample_value("tests_lag_steps_bucket", {"le": le}) for le in ("0.0", "1.0", "4.0", "+Inf")}
    assert got == {"0.0": 5, "1.0": 5, "4.0": 8, "+Inf": 9}
    assert REGISTRY.get_sample_value("tests_lag_steps_sum") == 15
    assert REGISTRY.get_sample_value("tests_lag_steps_count") == 9
    REGISTRY.unregister(lags)
