"""The replicas of a run as /metrics shows them: `ratchet top`, and the lines of the live display."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from services.command.rooms import ROLLOUT
from services.command.scrape import Scrape, grown, idle_share, scrape
from services.numbers import count, number
from services.run.addresses import addresses
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.talk_figures import TalkFigures, talk_figures

POLL_S = 2.0
SHORTEST_S = 0.5
"""Two scrapes that are closer than this say nothing of a rate; then the whole life of the process is the interval."""


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica at one time; None is what it did not say."""

    replica_id: str
    state: str
    policy_version: int | None = None
    sequences: int | None = None
    """In the engine now."""
    tokens_per_s: float | None = None
    """Response tokens of finished groups, per second."""
    idle_ratio: float | None = None
    """Fraction of the interval in which its engine had no sequence."""
    weights_age_s: float | None = None
    """Seconds since the broadcast of its weights was confirmed."""


def replica_view(
    replica_id: str, now: Scrape | None, before: Scrape | None, confirmed_unix_s: Mapping[int, float]
) -> ReplicaView:
    """A replica from two scrapes. before: None for the first one. confirmed_unix_s: policy version -> when all had it."""
    if now is None:
        return ReplicaView(replica_id, "does not answer")
    version = int(now.value("ratchet_rollout_policy_version") or 0)
    running = int(now.value("ratchet_rollout_running_sequences") or 0)
    seconds = now.at_s - before.at_s if before is not None else 0.0
    if before is None or seconds < SHORTEST_S:
        before, seconds = None, now.uptime_s

    state = "waits for prompts" if now.value("ratchet_rollout_ready") else "waits for weights"
    if running:  # also for a moment before it says that it is ready
        state = "sampling"
    confirmed = confirmed_unix_s.get(version)
    return ReplicaView(
        replica_id,
        state,
        policy_version=version,
        sequences=running,
        tokens_per_s=grown("ratchet_rollout_sampled_tokens_total", before, now) / seconds,
        idle_ratio=idle_share(ROLLOUT, before, now),
        weights_age_s=max(0.0, now.at_unix_s - confirmed) if confirmed is not None else None,
    )


class Fleet:
    """Asks the replicas of one run again and again."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._before: dict[str, Scrape] = {}
        self.talks: TalkFigures | None = None
        """What their conversations have come to at the last look; None: they hold none."""

    def look(self) -> list[ReplicaView]:
        """Every replica that has announced its address, now."""
        confirmed = {row["policy_version"]: row["at_unix_s"] for row in read_json_lines(self._folder.syncs)}
        there = {name: url for name, url in addresses(self._folder.services).items() if name.startswith(ROLLOUT)}
        views = []
        found = scrape(there)
        self.talks = talk_figures([one.by for one in found.values() if one is not None])
        for name, now in found.items():
            views.append(replica_view(name, now, self._before.get(name), confirmed))
            if now is not None:
                self._before[name] = now
        return views


class FleetWatch:
    """A fleet that a thread of its own asks, so that the reader of `views` never waits for a replica."""

    def __init__(self, folder: RunFolder) -> None:
        self.views: list[ReplicaView] = []
        self.talks: TalkFigures | None = None
        self._fleet = Fleet(folder)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        """Look every 2 s, until it is closed.

        Waits for: time to pass.
        Until: 2 s (POLL_S) each time.
        Ended by: the time, or `close`.
        Metric: none; nobody waits for it.
        """
        while not self._closing.is_set():
            self.views = self._fleet.look()
            self.talks = self._fleet.talks
            self._closing.wait(POLL_S)

    def close(self) -> None:
        """Stop asking; the thread ends by itself."""
        self._closing.set()


COLUMNS = ("replica", "version", "state", "in flight", "tokens/s", "idle", "last weights")


def cells(view: ReplicaView) -> tuple[str, ...]:
    """What the columns say of a replica."""
    age = view.weights_age_s
    return (
        view.replica_id,
        "-" if view.policy_version is None else str(view.policy_version),
        view.state,
        count(view.sequences),
        count(view.tokens_per_s),
        number(view.idle_ratio, 2),
        "-" if age is None else f"{count(age)} s ago",
    )


def fleet_table(views: list[ReplicaView]) -> Table:
    """The replicas as a table."""
    table = Table(*COLUMNS[:1], box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in COLUMNS[1:]:
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=name != "state")
    for view in views:
        row = cells(view)
        style = "red" if view.policy_version is None else None
        table.add_row(*row, style=style)
    return table
