"""What the page knows of a run: read once a second while somebody looks at it, and not at all otherwise."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import Any

from services.clock import now_s
from services.config import RunConfig
from services.config.load import load
from services.entry import redis_url
from services.errors import InputError, RatchetError
from services.page.alerts import Alerts
from services.page.curves import Curves
from services.page.dead import DeadLetters
from services.page.scrape import Figures, Named, Scraper, by_label
from services.run.addresses import addresses
from services.run.folder import RunFolder
from services.run.summary import newest
from services.run.tail import Tail
from services.run.waiting import read_waiting
from services.streams.names import ALL
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from services.talk_figures import SAMPLES, talk_figures
from services.weights.membership import Membership

log = logging.getLogger("ratchet.page")

LOOK_EVERY_S = 1.0
WATCHED_S = 10.0
"""After this long without a request nobody is looking."""
EVALUATED = ("attempt", "policy_version", "avg_at_k", "sources")
"""What the page knows of each evaluation."""
REDIS_S = 1.5
"""For a command: a server that is away must not hold the page up."""


class Watch:
    """Follows one run on a thread of its own."""

    def __init__(
        self, folder: RunFolder, prometheus: str | None = None, services: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """prometheus: address of a Prometheus whose alerts are shown. services: addresses by name, of services that do not write
        theirs into the folder. Raises InputError when there is no such folder.
        """
        if not folder.path.is_dir():
            raise InputError(f"{folder.path} is not a folder. Give that of a run, such as runs/NAME")
        self.folder = folder
        self.curves = Curves(folder.steps)
        self.dead = DeadLetters(folder)
        self._evaluations = Tail(folder.evaluations).from_the_start()
        self._evaluated: list[dict[str, Any]] = []
        self._scraper = Scraper()
        self._alerts = Alerts(prometheus) if prometheus else None
        self._named = Named(services)
        self._config: RunConfig | None = None
        self._config_written: int | None = None
        self._connection: RedisConnection | None = None
        self._url = ""
        self._live: dict[str, Any] = {}
        self._guard = threading.Lock()
        self._asked_s = -WATCHED_S
        self._asked = threading.Event()
        self._closing = False
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def state(self, step: int, revision: int) -> dict[str, Any]:
        """What the page shows; of the steps, those after `step`."""
        self._asked_s = now_s()
        self._asked.set()
        with self._guard:
            return {**self._live, "steps": self.curves.since(step, revision)}

    def connection(self) -> RedisConnection:
        """A connection to the run's server. Raises InputError or StreamError when there is none."""
        url = self._redis_url()
        if not url:
            raise InputError("the run has no Redis server now: it is not running")
        if self._connection is None or url != self._url:
            if self._connection is not None:
                self._connection.close()
            self._connection = RedisConnection(url, deadline_s=REDIS_S)
            self._url = url
        return self._connection

    def config(self) -> RunConfig | None:
        """The run's settings; None before it has written them."""
        if (
            self.folder.settings.exists()
            and (written := self.folder.settings.stat().st_mtime_ns) != self._config_written
        ):
            self._config = load(self.folder.settings)
            self._config_written = written
        return self._config

    def look(self) -> None:
        """Read everything once."""
        config = self.config()
        with self._guard:
            self.curves.read()
            self.dead.read()
            rows = [{name: row.get(name) for name in EVALUATED} for row in self._evaluations.rows()]
            self._evaluated = newest(self._evaluated + rows, "policy_version")
        there = {**self._named.addresses(), **addresses(self.folder.services)}
        self._scraper.look(there)
        live = {
            "run": self._run_facts(config),
            "waiting": self._waiting(),
            "evaluations": [[row["policy_version"], row["avg_at_k"]] for row in self._evaluated],
            "groups": (self.curves.newest or {}).get("groups"),
            "sources": self._sources(),
            "talks": self._talks(),
            "services": dict(self._service(name) for name in there),
            "dead": self.dead.shown(),
            "alerts": self._alerts.look() if self._alerts is not None else None,
            **self._queues(config),
        }
        with self._guard:
            self._live = live

    def close(self) -> None:
        self._closing = True
        self._asked.set()

    def _run(self) -> None:
        """Look once a second while somebody asks.

        Waits for: a request of a browser.
        Until: there is no deadline.
        Ended by: a request, or `close`.
        Metric: none; the page has none.
        """
        while not self._closing:
            if now_s() - self._asked_s >= WATCHED_S:
                self._asked.clear()
                self._asked.wait()
            try:
                self.look()
            except Exception as fault:  # the page has to outlive whatever a run leaves in its folder
                log.warning("the run cannot be read: %s: %s", type(fault).__name__, fault)
                with self._guard:
                    self._live = {**self._live, "fault": f"{type(fault).__name__}: {fault}"}
            threading.Event().wait(LOOK_EVERY_S)

    def _run_facts(self, config: RunConfig | None) -> dict[str, Any]:
        facts: dict[str, Any] = {"name": self.folder.path.name, "finished": self.folder.summary.exists()}
        if config is not None:
            facts |= {
                "name": config.name,
                "steps": config.learner.steps,
                "max_lag": config.learner.max_lag,
                "objective": config.learner.objective.type,
                "model": config.model.path,
                "kept_groups_mib": config.learner.kept_groups_mib,
            }
        return facts

    def _waiting(self) -> dict[str, Any] | None:
        waiting = read_waiting(self.folder.waiting)
        if waiting is None or waiting.step <= (self.curves.newest or {}).get("step", 0):
            return None
        return {"step": waiting.step, "usable": waiting.usable, "needed": waiting.needed, "said": waiting.said()}

    def _sources(self) -> dict[str, Any]:
        """The figures of each of several sources in the last step, with the last held-out accuracy."""
        held_out = (self._evaluated[-1].get("sources") if self._evaluated else None) or {}
        return {
            name: {**figures, "held_out": held_out.get(name, {}).get("avg_at_k")}
            for name, figures in ((self.curves.newest or {}).get("sources") or {}).items()
        }

    def _talks(self) -> dict[str, Any] | None:
        figures = talk_figures([partial(_by, one.figures) for one in self._scraper.services.values()])
        return None if figures is None else asdict(figures)

    def _service(self, name: str) -> tuple[str, dict[str, Any]]:
        """What the service calls itself, or else the name that it was given, and what it said last."""
        scraped = self._scraper.services.get(name)
        if scraped is None:
            return name, {"fault": "not asked yet"}
        return scraped.own_name or name, {
            "fault": scraped.fault,
            "figures": {key: round(value, 3) for key, value in scraped.figures.items() if _is_shown(key)},
            "rates": {key: round(value, 3) for key, value in scraped.rates.items()},
            "age_s": round(now_s() - scraped.at_s, 1) if scraped.at_s else None,
        }

    def _queues(self, config: RunConfig | None) -> dict[str, Any]:
        """The streams and the replicas, or why they cannot be asked.

        Waits for: the run's Redis server.
        Until: REDIS_S for each command.
        Ended by: its answer, or the deadline, which the page shows.
        Metric: none; the page has none.
        """
        if config is None:
            return {"queues": {}, "replicas": [], "redis": "the run has not written its settings yet"}
        try:
            connection = self.connection()
            queues = {}
            for name in ALL:
                depth = RedisStream(connection, config.name, name, "page", 1e8).depth()
                queues[name] = [depth.waiting, depth.pending]
            leases = Membership(connection, config.name, lease_s=config.deadlines.lease_s).live().values()
        except RatchetError as fault:
            return {"queues": {}, "replicas": [], "redis": str(fault)}
        replicas = [
            {"id": one.replica_id, "version": one.policy_version, "ready": one.ready, "busy_s": one.sampling_s}
            for one in sorted(leases, key=lambda lease: lease.replica_id)
        ]
        return {"queues": queues, "replicas": replicas, "redis": ""}

    def _redis_url(self) -> str:
        own = self.folder.redis_url
        if own.exists():
            return own.read_text(encoding="utf-8")
        config = self.config()
        return (redis_url(config) if config is not None else None) or ""


def _by(figures: Figures, name: str, label: str) -> Mapping[str, float]:
    return by_label(figures, name)


def _is_shown(key: str) -> bool:
    """Whether a browser gets this figure of each service: not seconds, and not what it gets as a whole."""
    return "_seconds" not in key and key.partition("/")[0] not in SAMPLES
