"""What a service says on /metrics, as a command reads it."""

import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

from services.clock import now_s

ANSWER_S = 2.0
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Not httpx, whose import takes a command longer than all of its requests."""
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Scrape:
    """The samples of one service at one time."""

    at_s: float
    """Monotonic seconds."""
    at_unix_s: float
    values: Mapping[tuple[str, Labels], float] = field(repr=False)

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples with this name that have these labels; None where there is none."""
        wanted = set(labels.items())
        found = [value for (one, has), value in self.values.items() if one == name and wanted <= set(has)]
        return sum(found) if found else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """The samples with this name, by the value of one label."""
        found: dict[str, float] = {}
        for (one, has), value in self.values.items():
            if one == name:
                key = dict(has).get(label, "")
                found[key] = found.get(key, 0.0) + value
        return found

    @property
    def uptime_s(self) -> float:
        """How long the process of the service has run."""
        started = self.value("process_start_time_seconds")
        return max(1.0, self.at_unix_s - started) if started else 1.0


def grown(name: str, before: Scrape | None, now: Scrape, **labels: str) -> float:
    """By how much a counter has grown between two looks at one process, or since its start if there was none before; 0 where the
    process was started again."""
    was = before.value(name, **labels) if before is not None else None
    return max(0.0, (now.value(name, **labels) or 0.0) - (was or 0.0))


def idle_share(
    room: str, before: Scrape | None, now: Scrape, *, less_idle_s: float = 0.0, less_busy_s: float = 0.0
) -> float | None:
    """Idle time of a room over all of its time between two looks, both without what is to be left out; None: no time is left."""
    idle_s = max(0.0, grown("ratchet_idle_seconds_total", before, now, room=room) - less_idle_s)
    busy_s = max(0.0, grown("ratchet_busy_seconds_total", before, now, room=room) - less_busy_s)
    return idle_s / (idle_s + busy_s) if idle_s + busy_s > 0 else None


def parse(text: str) -> Scrape:
    """The samples of a page of /metrics. Raises ValueError."""
    values = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return Scrape(now_s(), time.time(), values)


def scrape(addresses: Mapping[str, str]) -> dict[str, Scrape | None]:
    """What each of these services says, asked all at once; None for one that does not answer.

    Waits for: the services.
    Until: 2 s (ANSWER_S) for each step of a request.
    Ended by: their answers, or the deadline, which counts as no answer.
    Metric: none; a command serves none.
    """
    if not addresses:
        return {}
    with ThreadPoolExecutor(min(32, len(addresses))) as pool:
        return dict(zip(addresses, pool.map(_ask, addresses.values()), strict=True))


def _ask(url: str) -> Scrape | None:
    try:
        with _opener.open(f"{url}/metrics", timeout=ANSWER_S) as answer:
            return parse(answer.read().decode())
    except (OSError, HTTPException, ValueError):  # an answer that is not 200 is an OSError, too
        return None
