"""Waiting for something that is away: as long as it takes, said once when it begins and once when it is over."""

import asyncio
import itertools
import logging
import random
from collections.abc import Iterator

from services.clock import now_s
from services.metrics import waiting
from verifier import metrics

LONGEST_PAUSE_S = 5.0
LAST_TRIES = 3  # once the worker is asked to stop, what is away may cost it so many more tries and no more

log = logging.getLogger("ratchet.verifier")


class Outage:
    """Of one thing that the worker depends on; shared by all that wait for it."""

    def __init__(self, awaiting: str, name: str, stop: asyncio.Event) -> None:
        """awaiting: the metric label; name: for the log."""
        self._awaiting, self._name, self._stop = awaiting, name, stop
        self._since_s: float | None = None

    def over(self) -> None:
        """It answered."""
        if self._since_s is not None:
            log.warning("%s is back after %.1f s", self._name, now_s() - self._since_s)
            self._since_s = None

    async def pause(self, reason: str, pause_s: float) -> None:
        """Wait before the next try, and no longer than until the worker is asked to stop."""
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
        """Seconds between tries, growing and scattered; ends LAST_TRIES after the worker was asked to stop."""
        last_tries = 0
        for number in itertools.count():
            last_tries += self._stop.is_set()
            if last_tries > LAST_TRIES:
                return
            yield min(LONGEST_PAUSE_S, 0.1 * 2 ** min(number, 10)) * random.uniform(0.5, 1.0)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
