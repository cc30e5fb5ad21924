"""From items to scores: what is settled at once, what the cache knows, and which lane judges the rest."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from services.config.verifier import VerifierConfig
from services.graders import graders
from services.metrics import BusyTime
from services.wire.verdict import Score
from verifier import metrics
from verifier.cache import Shelf, freeze, key_of, thaw
from verifier.contract import ScoreItem
from verifier.grader import LaneName, ScoringFault, load_grader
from verifier.graders.combine import Combine
from verifier.lanes.lane import Lane
from verifier.lanes.network import NetworkLane
from verifier.lanes.parts import PartsLane
from verifier.lanes.process import process_lane
from verifier.network.endpoints import Endpoints
from verifier.network.grader import NetworkGrader
from verifier.pool.pool import GraderPool
from verifier.registry import Catalogue, catalogue
from verifier.scores import no_verdict

NOT_ASKED = no_verdict("not asked")

log = logging.getLogger("ratchet.verifier")


@asynccontextmanager
async def open_grading(
    settings: VerifierConfig,
    endpoints: Endpoints,
    shelf: Shelf | None = None,
    entries: Catalogue | None = None,
) -> AsyncIterator["Grading"]:
    """Everything that judges, without the HTTP service. shelf: None: nothing is cached. entries: the graders; None: all that
    are installed."""
    found = graders() if entries is None else {entry.name: entry.location for entry in entries.values()}
    async with process_lane(settings, found) as pool:
        if entries is None:
            entries = await catalogue(found)
        for entry in entries.values():
            if entry.fault:
                log.warning("grader %s cannot be used: %s", entry.name, entry.fault)
        yield Grading(settings, entries, pool, endpoints, shelf)


class Grading:
    def __init__(
        self,
        settings: VerifierConfig,
        entries: Catalogue,
        pool: GraderPool,
        endpoints: Endpoints,
        shelf: Shelf | None,
    ) -> None:
        """shelf: None: nothing is cached."""
        self.catalogue = entries
        self.pool = pool
        self._settings = settings
        self._shelf = shelf
        self._busy = BusyTime("verifier")
        loaded = {
            name: load_grader(entry.location)
            for name, entry in entries.items()
            if entry.lane != "process" and not entry.fault
        }
        asking = {name: one for name, one in loaded.items() if issubclass(one, NetworkGrader)}
        combining = {name: one for name, one in loaded.items() if issubclass(one, Combine)}
        self._network = NetworkLane(asking, endpoints)
        parts = PartsLane(combining, entries, self._score)
        self._lanes: Mapping[LaneName, Lane] = {"process": pool, "network": self._network, "parts": parts}

    @property
    def queued_items(self) -> int:
        """Accepted and not yet judged."""
        return self.pool.queued_items + self._network.queued_items

    async def score(self, items: Sequence[ScoreItem], caller: str = "") -> list[Score]:
        """One score for each item, in order.

        Waits for: the lanes, and the cache's store.
        Until: the deadlines of the lanes; the store has its own.
        Ended by: a score for every item, or cancellation by the caller.
        Metric: ratchet_verifier_queued_items, ratchet_verifier_endpoint_waiting_calls.
        """
        with self._busy.working():
            scores = await self._score(items, caller)
        counts = Counter((score.verdict, item.grader) for item, score in zip(items, scores, strict=True))
        for labels, count in counts.items():
            metrics.SCORES.labels(*labels).inc(count)
        for score in scores:
            metrics.SCORE_SECONDS.observe(score.elapsed_s)
        return scores

    async def _score(self, items: Sequence[ScoreItem], caller: str) -> list[Score]:
        scores: list[Score | None] = [self._settled(item) for item in items]
        keys = {at: key for at, item in enumerate(items) if scores[at] is None and (key := self._key(item)) is not None}
        known = await self._known(list(keys.values()))
        for at, key in keys.items():
            scores[at] = known.get(key)
        open_ = [at for at, score in enumerate(scores) if score is None]
        lanes: dict[LaneName, list[int]] = {}
        for at in open_:
            lanes.setdefault(self.catalogue[items[at].grader].lane, []).append(at)

        work = [self._lanes[lane].score([items[at] for at in places], caller) for lane, places in lanes.items()]
        for places, given in zip(lanes.values(), await asyncio.gather(*work), strict=True):
            for at, score in zip(places, given, strict=True):
                scores[at] = score
        complete = [NOT_ASKED if score is None else score for score in scores]
        await self._remember({keys[at]: complete[at] for at in open_ if at in keys})
        return complete

    def _settled(self, item: ScoreItem) -> Score | None:
        """The score of an item that no grader needs to see; None: one does."""
        entry = self.catalogue[item.grader]
        if entry.fault:
            return no_verdict(f"grader {item.grader} cannot be used: {entry.fault}")
        limits = self._settings.limits.get(item.grader)
        if limits and limits.response_characters is not None and len(item.response) > limits.response_characters:
            detail = f"{len(item.response)} characters are more than the {limits.response_characters} allowed"
            return Score(verdict="incorrect", reward=0.0, detail=detail, elapsed_s=0.0)
        return None

    def _key(self, item: ScoreItem) -> bytes | None:
        """The item's key in the cache; None: it is not cached."""
        entry = self.catalogue[item.grader]
        if self._shelf is None or not entry.cached:
            return None
        version = entry.version
        if entry.lane == "network":
            try:
                version += self._network.cache_salt(item)
            except ScoringFault:
                return None  # the lane says it again, as the item's score
        return key_of(item.grader, version, item.options, item.reference, item.response)

    async def _known(self, keys: Sequence[bytes]) -> dict[bytes, Score]:
        if self._shelf is None or not keys:
            return {}
        distinct = list(dict.fromkeys(keys))
        found = {
            key: score
            for key, value in zip(distinct, await self._shelf.get_many(distinct), strict=True)
            if value is not None and (score := thaw(value)) is not None
        }
        metrics.CACHE_LOOKUPS.labels("hit").inc(sum(key in found for key in keys))
        metrics.CACHE_LOOKUPS.labels("miss").inc(sum(key not in found for key in keys))
        return found

    async def _remember(self, scores: Mapping[bytes, Score]) -> None:
        values = {key: freeze(score) for key, score in scores.items() if score.reward is not None}
        if self._shelf is not None and values:
            await self._shelf.put_many(values)
