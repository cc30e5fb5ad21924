"""A few figures from /metrics of each service, one service after the other, so that many of them cost no more than a few."""

import re
import socket
import urllib.request
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit

from services.clock import now_s
from services.health import SERVICE_HEADER
from services.talk_figures import SAMPLES

SHORTEST_ROUND_S = 2.0
EACH_S = 0.25
"""A round takes at least this long for each service: four of them are asked a second, at most."""
ANSWER_S = 2.0
LOOK_UP_EVERY_S = 10.0
RATE_S = 15.0
"""Longer than most steps of a small run: within one, sampling stops and goes."""
NAMES = (
    "ratchet_waiting",
    "ratchet_wait_seconds_total",
    "ratchet_rollout_sampled_tokens_total",
    "ratchet_rollout_running_sequences",
    "ratchet_learner_trained_tokens_total",
    "ratchet_verifier_scores_total",
    "ratchet_verifier_queued_items",
    "vllm:kv_cache_usage_perc",
    *SAMPLES,
)
SHOWN_LABELS = ("awaiting", "tool", "fault")
LINE = re.compile(
    rb"^(%b)(?:\{([^}\n]*)\})? (\S+)$" % b"|".join(re.escape(name.encode()) for name in NAMES), re.MULTILINE
)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Figures = dict[str, float]
"""`name`, or `name/label` for a label of SHOWN_LABELS -> value, summed over the other labels."""


@dataclass
class Scraped:
    """What one service has said last."""

    figures: Figures = field(default_factory=dict)
    rates: Figures = field(default_factory=dict)
    """Change a second over about the last RATE_S, of counters."""
    history: deque[tuple[float, Figures]] = field(default_factory=deque)
    """When it answered and what, the oldest first: as much as the rates need."""
    at_s: float = 0.0
    """When it answered; 0: never."""
    own_name: str = ""
    """What it calls itself, such as the id of a replica; empty: nothing."""
    fault: str = ""
    """Why the last request failed; empty: it did not."""


class Scraper:
    """Asks the services of a run in turn."""

    def __init__(self) -> None:
        self.services: dict[str, Scraped] = {}
        # Not httpx, which takes three times as long for a request: with 64 replicas this is most of what the page costs.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._next: dict[str, float] = {}

    def look(self, addresses: Mapping[str, str]) -> None:
        """Ask those whose turn it is. Called about once a second.

        Waits for: the services whose turn it is, one after the other.
        Until: ANSWER_S for each; one that does not answer is not asked again before the next round.
        Ended by: its answer, or the deadline, which the page shows.
        Metric: none; the page has none.
        """
        for name in self.services.keys() - addresses.keys():
            del self.services[name]
        every_s = max(SHORTEST_ROUND_S, EACH_S * len(addresses))
        for name, address in addresses.items():
            now = now_s()
            if name not in self._next:  # spread over the round
                self._next[name] = (
                    now + every_s * len(self._next) / max(1, len(addresses)) if len(addresses) > 8 else now
                )
            if now >= self._next[name]:
                self._next[name] = max(self._next[name] + every_s, now)
                self._ask(self.services.setdefault(name, Scraped()), address)

    def _ask(self, service: Scraped, address: str) -> None:
        try:
            with self._opener.open(f"{address}/metrics", timeout=ANSWER_S) as answer:
                text = answer.read()
                service.own_name = answer.headers.get(SERVICE_HEADER, "")
        except HTTPError as fault:
            service.fault = f"status {fault.code}"
            fault.close()
            return
        except (OSError, HTTPException) as fault:
            service.fault = str(getattr(fault, "reason", fault)) or type(fault).__name__
            return
        figures, now = figures_of(text), now_s()
        counters = {name: value for name, value in figures.items() if "_total" in name}
        if any(value < service.figures.get(name, 0.0) for name, value in counters.items()):
            service.history.clear()  # it was started again
        service.history.append((now, counters))
        while len(service.history) > 2 and now - service.history[1][0] >= RATE_S:
            service.history.popleft()
        since_s, before = service.history[0]
        if now > since_s:
            service.rates = {
                name: (value - before.get(name, 0.0)) / (now - since_s) for name, value in counters.items()
            }
        service.figures = figures
        service.at_s = now
        service.fault = ""


def figures_of(text: bytes) -> Figures:
    """The figures of NAMES in an exposition of Prometheus."""
    found: Figures = {}
    for name, labels, value in LINE.findall(text):
        known = dict(LABEL.findall(labels.decode())) if labels else {}
        shown = next((known[label] for label in SHOWN_LABELS if label in known), None)
        key = f"{name.decode()}/{shown}" if shown else name.decode()
        found[key] = found.get(key, 0.0) + float(value)
    return found


def by_label(figures: Figures, name: str) -> dict[str, float]:
    """The figures of this name, by the label that is shown; under "" where there is none."""
    return {key.partition("/")[2]: value for key, value in figures.items() if key.partition("/")[0] == name}


class Named:
    """Services that were named by address. A scaled service of Compose has an address for each of its containers."""

    def __init__(self, services: Mapping[str, str]) -> None:
        """services: name -> URL."""
        self._services = services
        self._looked_up_s = -LOOK_UP_EVERY_S
        self._known: dict[str, str] = {}

    def addresses(self) -> dict[str, str]:
        """Name -> URL: one entry for each address that a name stands for, with the address behind the name if there are several.
        A name that nobody knows now stays as it is: asking it says why."""
        if now_s() - self._looked_up_s >= LOOK_UP_EVERY_S:
            self._looked_up_s = now_s()
            self._known = {each: url for name, url in self._services.items() for each, url in _each(name, url)}
        return self._known


def _each(name: str, url: str) -> list[tuple[str, str]]:
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return [(name, url)]
    hosts = sorted({str(address[0]) for *_, address in found})
    if len(hosts) == 1 or parts.scheme == "https":  # its certificate is for the name
        return [(name, url)]
    port = f":{parts.port}" if parts.port else ""
    return [(f"{name}-{host}", parts._replace(netloc=f"{host}{port}").geturl()) for host in hosts]
