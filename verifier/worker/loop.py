"""The stream worker: claims groups of trajectories, has them scored over HTTP, hands them over.

A group with an error or a timeout among its verdicts goes its own way from there: the others of its batch are handed
over at once, it is asked for again, and after `verifier.attempts` it goes to `dead` with its cause. A scoring service or
a stream server that is away is waited for; no group goes to `dead` for that.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from services.config.verifier import VerifierConfig
from services.errors import StreamError, WireError
from services.metrics import waiting
from services.streams import Claim, Stream
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup, Score, ScoredGroup
from services.wire.trajectory import Group
from verifier import metrics
from verifier.contract import ScoreItem
from verifier.worker.client import ScoringClient, ServiceAway, tls_context
from verifier.worker.retry import Outage, sleep_unless

CLAIM_BLOCK_S = 0.5  # how late a stop is seen when nothing arrives
GATHER_S = 0.03  # between two claims: groups arrive one by one, and thirty requests a second cost less than hundreds
KEEP_ALIVE_S = 2.0  # below uvicorn's 5 s: a connection that the server has just closed looks like an outage
SECOND_ATTEMPT_S = 0.5  # four times as much before each further one: what is away for ten seconds costs no group

R = TypeVar("R")
log = logging.getLogger("ratchet.verifier")


@dataclass(frozen=True)
class VerifierStreams:
    trajectories: Stream
    scored: Stream
    dead: Stream
    max_deliveries: int
    renew_every_s: float
    verifier_id: str = field(default_factory=socket.gethostname)


@dataclass(frozen=True)
class ClaimedGroup:
    claim: Claim
    group: Group
    items: tuple[ScoreItem, ...]


class StreamWorker:
    def __init__(self, settings: VerifierConfig, streams: VerifierStreams, url: str) -> None:
        """url: of the scoring service."""
        self._settings, self._streams, self._url = settings, streams, url
        self._in_flight: dict[str, Claim] = {}
        self._client: ScoringClient
        self._outage: Outage
        self._stop: asyncio.Event

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; what was claimed by then is finished first, or given back when what it needs stays away.

        Raises InputError when the URL is none.
        """
        self._stop, self._outage = stop, Outage("streams", "the stream server", stop)
        limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_S)
        own_service = self._settings.url is None  # never through a proxy of the environment
        async with httpx.AsyncClient(
            limits=limits, trust_env=not own_service, verify=tls_context(self._settings)
        ) as http:
            self._client = ScoringClient(http, self._url, self._settings, stop)
            renewing = asyncio.create_task(self._renew())
            batches: set[asyncio.Task[None]] = set()
            try:
                while not stop.is_set():
                    if claims := await self._claim():
                        batches.add(asyncio.create_task(self._score(claims)))
                    await self._pace(batches)
                await asyncio.gather(*batches)
            except (ServiceAway, StreamError) as fault:  # both only after `stop`
                log.warning("%d groups go back to the stream: %s", len(self._in_flight), fault)
            finally:
                for task in (renewing, *batches):
                    task.cancel()
                await asyncio.gather(renewing, *batches, return_exceptions=True)
            # Only here, after a clean stop: a release does not count as a delivery, and what ended the worker by an
            # error would meet the next one for ever.
            with suppress(StreamError):  # they are claimed again all the same, after their idle time
                await asyncio.to_thread(self._streams.trajectories.release)

    async def _claim(self) -> list[Claim]:
        # Twice the groups of a request: while the slowest response of one batch is graded, the next one goes on.
        room = 2 * self._settings.concurrent_groups - len(self._in_flight)
        count = min(room, self._settings.concurrent_groups)
        if count <= 0:
            return []
        with waiting("verifier", "trajectories"):
            claims = await self._call(self._streams.trajectories.claim, count, CLAIM_BLOCK_S)
        self._in_flight.update((claim.entry_id, claim) for claim in claims)
        return claims

    async def _pace(self, batches: "set[asyncio.Task[None]]") -> None:
        """Let groups gather, and raise what stopped a batch."""
        await sleep_unless(self._stop, GATHER_S)
        for batch in [batch for batch in batches if batch.done()]:
            batches.discard(batch)
            batch.result()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._streams.renew_every_s)
            if claims := list(self._in_flight.values()):
                try:
                    await asyncio.to_thread(self._streams.trajectories.renew, claims)
                except StreamError as fault:
                    log.debug("claims not renewed: %s", fault)  # whoever hands over meets the same fault and waits

    async def _score(self, claims: Sequence[Claim]) -> None:
        opened = [await self._open(claim) for claim in claims]
        groups = [claimed for claimed in opened if claimed is not None]
        scores = iter(await self._client.score([item for claimed in groups for item in claimed.items]))
        by_group = [(claimed, [next(scores) for _ in claimed.items]) for claimed in groups]
        await self._hand_over([(claimed, given) for claimed, given in by_group if not faults(given)])
        await asyncio.gather(*(self._insist(claimed, given) for claimed, given in by_group if faults(given)))

    async def _open(self, claim: Claim) -> ClaimedGroup | None:
        """None: it cannot be scored, and is in `dead`."""
        try:
            group = decode(claim.payload, Group)
        except WireError as fault:
            await self._bury(claim, None, str(fault))
            return None
        if claim.deliveries > self._streams.max_deliveries:
            cause = f"claimed {claim.deliveries} times and never handed over: its workers died or lost it"
            await self._bury(claim, group.prompt, cause)
            return None
        if not group.trajectories:
            await self._bury(claim, group.prompt, f"holds no trajectories; sampled by {group.replica_id}")
            return None
        prompt = group.prompt
        items = tuple(
            ScoreItem(
                f"{prompt.group_id}/{index}",
                prompt.grader,
                one.text,
                prompt.reference,
                prompt.options,
                len(one.token_ids),
            )
            for index, one in enumerate(group.trajectories)
        )
        return ClaimedGroup(claim, group, items)

    async def _insist(self, claimed: ClaimedGroup, scores: list[Score]) -> None:
        """Ask again for the verdicts that are none, until they are there or the attempts are used up."""
        for attempt in range(1, self._settings.attempts):
            metrics.GROUP_RETRIES.inc()
            await sleep_unless(self._stop, pause_s(attempt))
            missing = faults(scores)
            for index, score in zip(
                missing, await self._client.score([claimed.items[index] for index in missing]), strict=True
            ):
                scores[index] = score
            if not faults(scores):
                await self._hand_over([(claimed, scores)])
                return
        missing = faults(scores)
        first = scores[missing[0]]
        cause = (
            f"{len(missing)} of {len(scores)} responses got no verdict in {self._settings.attempts} attempts; "
            f"response {missing[0]}: {first.verdict}: {first.detail}"
        )
        await self._bury(claimed.claim, claimed.group.prompt, cause)

    async def _hand_over(self, results: Sequence[tuple[ClaimedGroup, list[Score]]]) -> None:
        if not results:
            return
        payloads = [
            (
                claimed.claim,
                encode(ScoredGroup(group=claimed.group, scores=tuple(scores), verifier_id=self._streams.verifier_id)),
            )
            for claimed, scores in results
        ]
        owed = await self._call(self._streams.trajectories.hand_over_many, payloads, self._streams.scored)
        for (claim, _), first in zip(payloads, owed, strict=True):
            self._in_flight.pop(claim.entry_id, None)
            metrics.GROUPS.labels("scored" if first else "repeated").inc()

    async def _bury(self, claim: Claim, prompt: Prompt | None, cause: str) -> None:
        group_id = prompt.group_id if prompt else claim.entry_id
        log.error("group %s goes to dead: %s", group_id, cause)
        dead = DeadGroup(
            prompt=prompt,
            group_id=group_id,
            stage=self._streams.trajectories.name,
            cause=cause,
            payload=claim.payload,
        )
        first = await self._call(self._streams.trajectories.hand_over, claim, self._streams.dead, encode(dead))
        self._in_flight.pop(claim.entry_id, None)
        metrics.GROUPS.labels("dead" if first else "repeated").inc()

    async def _call(self, method: Callable[..., R], *arguments: object) -> R:
        """A stream's method, in a thread, again until the server is there. Raises StreamError once asked to stop."""
        fault: StreamError | None = None
        for pause_s in self._outage.pauses():
            try:
                answer = await asyncio.to_thread(method, *arguments)
            except StreamError as error:
                fault = error
                await self._outage.pause(str(error), pause_s)
            else:
                self._outage.over()
                return answer
        raise fault or StreamError("stopped before the stream server was asked")


def pause_s(attempt: int) -> float:
    """After so many attempts: 0.5 s, 2 s, 8 s, ..."""
    return SECOND_ATTEMPT_S * 4.0 ** (attempt - 1)


def faults(scores: Sequence[Score]) -> list[int]:
    """The responses that have no reward."""
    return [index for index, score in enumerate(scores) if score.reward is None]
