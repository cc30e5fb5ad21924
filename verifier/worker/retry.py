"""Waiting for something that is away, for as long as it takes. It is logged once when it begins and once when it ends."""

import asyncio
import itertools
import logging
import random
from collections.abc import Iterator

from services.clock import now_s
from services.metrics import waiting
from verifier import metrics

LONGEST_PAUSE_S = 5.0
LAST_TRIES = 3  # after the worker was asked to stop, something that is away costs it this many more tries

log = logging.getLogger("ratchet.verifier")


class Outage:
    """The outages of one thing that the worker depends on; shared by all calls that wait for it."""

    def __init__(self, awaiting: str, name: str, stop: asyncio.Event) -> None:
        """awaiting: the metric label. name: for the log."""
        self._awaiting = awaiting
        self._name = name
        self._stop = stop
        self._since_s: float | None = None

    def over(self) -> None:
        """It answered."""
        if self._since_s is not None:
            log.warning("%s is back after %.1f s", self._name, now_s() - self._since_s)
            self._since_s = None

    async def pause(self, reason: str, pause_s: float) -> None:
        """Waits before the next try.

        Waits for: time to pass.
        Until: pause_s, and at most 1 s once the worker was asked to stop.
        Ended by: the time, or the stop signal.
        Metric: ratchet_waiting{room="verifier", awaiting="scoring"} or awaiting="streams".
        """
        if self._since_s is None:
            self._since_s = now_s()
            metrics.OUTAGES.labels(self._awaiting).inc()
            log.warning("%s is away: %s; trying until it is back", self._name, reason)
        metrics.RETRIED_CALLS.labels(self._awaiting).inc()
        with waiting("verifier", self._awaiting):
            if self._stop.is_set():
                await asyncio.sleep(min(pause_s, 1.0))
            else:
                await sleep_unless(self._stop, pause_s)

    def pauses(self) -> Iterator[float]:
        """Seconds between tries, growing and with jitter. Ends LAST_TRIES after the worker was asked to stop."""
        last_tries = 0
        for number in itertools.count():
            last_tries += self._stop.is_set()
            if last_tries > LAST_TRIES:
                return
            yield min(LONGEST_PAUSE_S, 0.1 * 2 ** min(number, 10)) * random.uniform(0.5, 1.0)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Sleeps, and returns at once when `stop` is set.

    Waits for: time to pass.
    Until: `seconds`.
    Ended by: the time, or the stop signal.
    Metric: that of the caller.
    """
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
