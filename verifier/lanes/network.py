"""The lane of graders that ask another service, in the event loop of this process."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from services.clock import now_s
from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.grader import ScoringFault, build_grader
from verifier.network.endpoints import Endpoints
from verifier.network.grader import NetworkGrader
from verifier.scores import no_verdict, scored

log = logging.getLogger("ratchet.verifier")


class NetworkLane:
    def __init__(self, graders: Mapping[str, type[NetworkGrader]], endpoints: Endpoints) -> None:
        self._graders = graders
        self._endpoints = endpoints
        self.queued_items = 0
        """Accepted and not yet judged."""

    async def score(self, items: Sequence[ScoreItem], caller: str = "") -> list[Score]:
        """One score for each item, in order.

        Waits for: the services that the graders ask.
        Until: deadline_s of the endpoint, for each call.
        Ended by: an answer to every item or its failure, or cancellation by the caller.
        Metric: ratchet_verifier_endpoint_waiting_calls shows the calls whose turn has not come.
        """
        self.queued_items += len(items)
        try:
            return await asyncio.gather(*map(self._score, items))
        finally:
            self.queued_items -= len(items)

    def cache_salt(self, item: ScoreItem) -> str:
        """What else the verdict on this item depends on. Raises ScoringFault when its options are not usable."""
        return build_grader(self._graders[item.grader], item.options).cache_salt(self._endpoints)

    async def _score(self, item: ScoreItem) -> Score:
        start_s = now_s()
        try:
            grader = build_grader(self._graders[item.grader], item.options)
            return scored(await grader.score(item.response, item.reference, self._endpoints), now_s() - start_s)
        except ScoringFault as fault:
            return no_verdict(str(fault), now_s() - start_s)
        except Exception as fault:
            # As in the grader processes: any exception of a grader is an `error` of that response.
            log.exception("grader %s failed", item.grader)
            return no_verdict(f"grader {item.grader} failed: {type(fault).__name__}: {fault}", now_s() - start_s)
