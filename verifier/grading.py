"""From items to verdicts: what is known already, what goes to the grader processes, what other services are asked, and
what is made of several verdicts.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from services.clock import now_s
from services.config.verifier import VerifierConfig
from services.wire.score import Score, Verdict
from verifier import metrics
from verifier.cache import Shelf, freeze, key_of, thaw
from verifier.contract import ScoreItem
from verifier.grader import Judgement, ScoringFault, build_grader, load_grader
from verifier.graders.combine import Combine, fault_among
from verifier.network.endpoints import Endpoints
from verifier.network.grader import NetworkGrader
from verifier.pool.pool import GraderPool
from verifier.pool.protocol import Task
from verifier.registry import Catalogue

DETAIL_CHARACTERS = 500
NOT_ASKED = Score(verdict="error", reward=None, detail="not asked", elapsed_s=0.0)

log = logging.getLogger("ratchet.verifier")


class Grading:
    def __init__(
        self,
        settings: VerifierConfig,
        catalogue: Catalogue,
        pool: GraderPool,
        endpoints: Endpoints,
        shelf: Shelf | None,
    ) -> None:
        """shelf: None to judge everything anew."""
        self.catalogue, self.pool = catalogue, pool
        self._settings, self._endpoints, self._shelf = settings, endpoints, shelf
        loaded = {
            name: load_grader(entry.location)
            for name, entry in catalogue.items()
            if entry.lane != "process" and not entry.fault
        }
        self._network = {name: one for name, one in loaded.items() if issubclass(one, NetworkGrader)}
        self._combining = {name: one for name, one in loaded.items() if issubclass(one, Combine)}
        self.waiting_items = 0
        """Accepted for lanes other than the grader processes and not yet judged."""

    @property
    def queued_items(self) -> int:
        return self.pool.queued_items + self.waiting_items

    async def score(self, items: Sequence[ScoreItem], caller: str = "") -> list[Score]:
        """One score for each item, in order."""
        scores = await self._score(items, caller)
        counts = Counter((score.verdict, item.grader) for item, score in zip(items, scores, strict=True))
        for labels, count in counts.items():
            metrics.SCORES.labels(*labels).inc(count)
        for score in scores:
            metrics.SCORE_SECONDS.observe(score.elapsed_s)
        return scores

    async def _score(self, items: Sequence[ScoreItem], caller: str) -> list[Score]:
        scores: list[Score | None] = [self._refused(item) for item in items]
        keys = {at: key for at, item in enumerate(items) if scores[at] is None and (key := self._key(item)) is not None}
        known = await self._known(list(keys.values()))
        for at, key in keys.items():
            scores[at] = known.get(key)
        open_ = [at for at, score in enumerate(scores) if score is None]
        lanes: dict[str, list[int]] = {}
        for at in open_:
            lanes.setdefault(self.catalogue[items[at].grader].lane, []).append(at)

        judges = {"process": self._process, "network": self._ask_all, "parts": self._combine}
        work = [judges[lane]([items[at] for at in numbers], caller) for lane, numbers in lanes.items()]
        for numbers, given in zip(lanes.values(), await asyncio.gather(*work), strict=True):
            for at, score in zip(numbers, given, strict=True):
                scores[at] = score
        settled = [NOT_ASKED if score is None else score for score in scores]
        await self._remember({keys[at]: settled[at] for at in open_ if at in keys})
        return settled

    def _refused(self, item: ScoreItem) -> Score | None:
        """What is settled without a look at the response."""
        entry = self.catalogue[item.grader]
        if entry.fault:
            return error(f"grader {item.grader} cannot be used: {entry.fault}")
        limits = self._settings.limits.get(item.grader)
        if limits and limits.response_characters is not None and len(item.response) > limits.response_characters:
            detail = f"{len(item.response)} characters are more than the {limits.response_characters} allowed"
            return Score(verdict="incorrect", reward=0.0, detail=detail, elapsed_s=0.0)
        return None

    def _key(self, item: ScoreItem) -> bytes | None:
        entry = self.catalogue[item.grader]
        if self._shelf is None or not entry.cached:
            return None
        version = entry.version
        if entry.lane == "network":
            try:
                version += build_grader(self._network[item.grader], item.options).cache_salt(self._endpoints)
            except ScoringFault:
                return None  # said by the one who judges
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

    async def _process(self, items: Sequence[ScoreItem], caller: str) -> list[Score]:
        tasks = [Task(item.grader, item.response, item.reference, item.options) for item in items]
        return await self.pool.score(tasks, caller)

    async def _ask_all(self, items: Sequence[ScoreItem], caller: str) -> list[Score]:
        self.waiting_items += len(items)
        try:
            return await asyncio.gather(*map(self._ask, items))
        finally:
            self.waiting_items -= len(items)

    async def _ask(self, item: ScoreItem) -> Score:
        start_s = now_s()
        try:
            grader = build_grader(self._network[item.grader], item.options)
            return scored(await grader.score(item.response, item.reference, self._endpoints), now_s() - start_s)
        except ScoringFault as fault:
            return error(str(fault), now_s() - start_s)
        except Exception as fault:
            # As in the grader processes: whatever a grader raises is a verdict of its own, `error`.
            log.exception("grader %s failed", item.grader)
            return error(f"grader {item.grader} failed: {type(fault).__name__}: {fault}", now_s() - start_s)

    async def _combine(self, items: Sequence[ScoreItem], caller: str) -> list[Score]:
        """The gates of all items in one go, then the other parts of those that passed."""
        start_s = now_s()
        open_ = [_Open(self._plan(item), item) for item in items]
        for gates in (True, False):
            asked = [(one, number) for one in open_ for number in one.next_parts(gates=gates)]
            parts = [one.part(number) for one, number in asked]
            for (one, number), score in zip(asked, await self._score(parts, caller), strict=True):
                one.scores[number] = score
        return [one.verdict(now_s() - start_s) for one in open_]

    def _plan(self, item: ScoreItem) -> Combine | Score:
        """An error when the options are none."""
        try:
            plan = build_grader(self._combining[item.grader], item.options)
            for part in plan.parts:
                if part.grader not in self.catalogue:
                    known = ", ".join(sorted(self.catalogue))
                    raise ScoringFault(f'option parts: there is no grader "{part.grader}"; known: {known}')
                plan.reference_of(part, item.reference)
        except ScoringFault as fault:
            return error(str(fault))
        return plan


class _Open:
    """One item of the grader `combine`, while its parts are being judged."""

    def __init__(self, plan: Combine | Score, item: ScoreItem) -> None:
        self._plan, self._item = plan, item
        self.scores: dict[int, Score] = {}

    def next_parts(self, *, gates: bool) -> list[int]:
        """None once the verdict is settled."""
        if isinstance(self._plan, Score) or self._plan.barred_by(self.scores) is not None:
            return []
        if fault_among(list(self.scores.values())) is not None:
            return []
        return [number for number, part in enumerate(self._plan.parts) if part.gate == gates]

    def part(self, number: int) -> ScoreItem:
        assert isinstance(self._plan, Combine)
        part, item = self._plan.parts[number], self._item
        reference = self._plan.reference_of(part, item.reference)
        return ScoreItem(
            f"{item.id}/{number}", part.grader, item.response, reference, part.options, item.response_tokens
        )

    def verdict(self, elapsed_s: float) -> Score:
        if isinstance(self._plan, Score):
            return self._plan
        scores = self.scores
        if self._plan.barred_by(scores) is None and (fault := fault_among(list(scores.values()))) is not None:
            return Score(verdict=fault.verdict, reward=None, detail=fault.detail, elapsed_s=elapsed_s)
        try:
            return scored(self._plan.judge(scores, self._item.response_tokens), elapsed_s)
        except ScoringFault as fault_:
            return error(str(fault_), elapsed_s)


def scored(judgement: Judgement, elapsed_s: float) -> Score:
    """Raises ScoringFault when the reward is no number."""
    reward = float(judgement.correct if judgement.reward is None else judgement.reward)
    if not math.isfinite(reward):
        raise ScoringFault(f"the grader gave the reward {reward}")
    verdict: Verdict = "correct" if judgement.correct else "incorrect"
    return Score(verdict=verdict, reward=reward, detail=judgement.detail[:DETAIL_CHARACTERS], elapsed_s=elapsed_s)


def error(detail: str, elapsed_s: float = 0.0) -> Score:
    return Score(verdict="error", reward=None, detail=detail[:DETAIL_CHARACTERS], elapsed_s=elapsed_s)
