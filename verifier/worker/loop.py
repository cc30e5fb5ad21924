"""The stream worker: claims groups of trajectories, has them scored by the service, hands them over.

When a group has a response without a verdict (error or timeout), the other groups of its batch are handed over at once, and
it is asked for again. After `verifier.attempts` it goes to `dead` with its cause. A scoring service or a stream server that
is away is waited for; no group goes to `dead` for that.
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
from services.loopback import is_loopback_url
from services.metrics import DEAD_GROUPS, waiting
from services.streams import Claim, Stream
from services.verifier_access import client_context
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup, ScoredGroup
from services.wire.trajectory import Group, Trajectory
from services.wire.verdict import Score
from verifier import metrics
from verifier.attempts import ask_again
from verifier.contract import ScoreItem
from verifier.scores import without_verdict
from verifier.worker.client import ScoringClient, ServiceAway
from verifier.worker.own_service import OwnService
from verifier.worker.retry import Outage, sleep_unless

CLAIM_BLOCK_S = 0.5  # how late a stop is seen when nothing arrives
GATHER_S = 0.03  # between two claims: groups arrive one by one, and thirty requests a second cost less than hundreds
KEEP_ALIVE_S = 2.0  # below uvicorn's 5 s: a connection that the server has just closed looks like an outage

R = TypeVar("R")
log = logging.getLogger("ratchet.verifier")


@dataclass(frozen=True)
class VerifierStreams:
    """The streams of a run, as its verifiers use them."""

    trajectories: Stream
    scored: Stream
    dead: Stream
    max_deliveries: int
    """A group that was claimed more often than this goes to `dead`."""
    renew_every_s: float
    """How often claims are renewed while their groups are scored."""
    verifier_id: str = field(default_factory=socket.gethostname)
    """Name of this worker, different from all others of the run."""


@dataclass(frozen=True)
class ClaimedGroup:
    """A group that is being scored."""

    claim: Claim
    group: Group
    items: tuple[ScoreItem, ...]
    """One for each trajectory."""


class StreamWorker:
    def __init__(
        self, settings: VerifierConfig, streams: VerifierStreams, url: str, own: OwnService | None = None
    ) -> None:
        """url: where the scoring service is. own: that of this process, which is asked instead."""
        self._settings = settings
        self._streams = streams
        self._url = url
        self._own = own
        self._in_flight: dict[str, Claim] = {}
        self._client: ScoringClient
        self._outage: Outage
        self._stop: asyncio.Event

    async def run(self, stop: asyncio.Event) -> None:
        """Scores groups until `stop`. Claimed groups are finished first, or given back when a service they need stays away.

        Raises InputError when the URL is malformed.

        Waits for: groups on the stream `trajectories`, and their scores.
        Until: it is stopped.
        Ended by: `stop`, and then the scores of the claimed groups or retry.LAST_TRIES tries for them.
        Metric: ratchet_waiting{room="verifier", awaiting="trajectories"}, awaiting="scores".
        """
        self._stop = stop
        self._outage = Outage("streams", "the stream server", stop)
        limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_S)
        here = self._settings.url is None or is_loopback_url(self._url)
        async with httpx.AsyncClient(
            limits=limits,
            transport=self._own,
            trust_env=not here,  # a proxy of the environment cannot reach this machine's own address
            verify=client_context(self._settings, own=self._settings.url is None),
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
            # Only here, after a clean stop: a release does not count as a delivery, so after an error the next worker
            # would meet the same error without end.
            with suppress(StreamError):  # they are claimed again all the same, after their idle time
                await asyncio.to_thread(self._streams.trajectories.release)

    async def _claim(self) -> list[Claim]:
        """Groups to score; none when enough are being scored.

        Waits for: groups on the stream `trajectories`.
        Until: CLAIM_BLOCK_S, and longer while the stream server is away.
        Ended by: groups, the time, or the stop signal.
        Metric: ratchet_waiting{room="verifier", awaiting="trajectories"}.
        """
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
        """Lets groups gather for GATHER_S, and raises what stopped a batch."""
        await sleep_unless(self._stop, GATHER_S)
        for batch in [batch for batch in batches if batch.done()]:
            batches.discard(batch)
            batch.result()

    async def _renew(self) -> None:
        """Renews the claims of groups that are being scored.

        Waits for: time to pass.
        Until: it is stopped.
        Ended by: cancellation, when the worker ends.
        Metric: none: no one waits for it.
        """
        while True:
            await asyncio.sleep(self._streams.renew_every_s)
            if claims := list(self._in_flight.values()):
                try:
                    await asyncio.to_thread(self._streams.trajectories.renew, claims)
                except StreamError as fault:
                    log.debug("claims not renewed: %s", fault)  # handing over meets the same fault, and waits

    async def _score(self, claims: Sequence[Claim]) -> None:
        opened = [await self._open(claim) for claim in claims]
        groups = [claimed for claimed in opened if claimed is not None]
        scores = iter(await self._client.score([item for claimed in groups for item in claimed.items]))
        by_group = [(claimed, [next(scores) for _ in claimed.items]) for claimed in groups]
        complete = [(claimed, given) for claimed, given in by_group if not without_verdict(given)]
        await self._hand_over(complete)
        await asyncio.gather(
            *(self._ask_again(claimed, given) for claimed, given in by_group if without_verdict(given))
        )

    async def _open(self, claim: Claim) -> ClaimedGroup | None:
        """The claimed group; None when it cannot be scored, and is in `dead`."""
        try:
            group = decode(claim.payload, Group)
        except WireError as fault:
            await self._to_dead(claim, None, "unreadable", str(fault))
            return None
        if claim.deliveries > self._streams.max_deliveries:
            cause = f"claimed {claim.deliveries} times and never handed over: its workers died or lost it"
            await self._to_dead(claim, group.prompt, "undeliverable", cause)
            return None
        if not group.trajectories:
            cause = f"holds no trajectories; sampled by {group.replica_id}"
            await self._to_dead(claim, group.prompt, "empty", cause)
            return None
        return ClaimedGroup(claim, group, items_of(group))

    async def _ask_again(self, claimed: ClaimedGroup, scores: list[Score]) -> None:
        """Asks for the responses that got no verdict until they have one, or the attempts are used up."""

        async def pause(seconds: float) -> None:
            metrics.GROUP_RETRIES.inc()
            await sleep_unless(self._stop, seconds)

        attempts = self._settings.attempts
        await ask_again(self._client.score, claimed.items, scores, attempts=attempts, pause=pause)
        missing = without_verdict(scores)
        if not missing:
            await self._hand_over([(claimed, scores)])
            return
        first = scores[missing[0]]
        cause = (
            f"{len(missing)} of {len(scores)} responses got no verdict in {attempts} attempts; "
            f"response {missing[0]}: {first.verdict}: {first.detail}"
        )
        await self._to_dead(claimed.claim, claimed.group.prompt, "no_verdict", cause)

    async def _hand_over(self, results: Sequence[tuple[ClaimedGroup, list[Score]]]) -> None:
        if not results:
            return
        verifier_id = self._streams.verifier_id
        payloads = [
            (claimed.claim, encode(ScoredGroup(group=claimed.group, scores=tuple(scores), verifier_id=verifier_id)))
            for claimed, scores in results
        ]
        owed = await self._call(self._streams.trajectories.hand_over_many, payloads, self._streams.scored)
        for (claim, _), first in zip(payloads, owed, strict=True):
            self._in_flight.pop(claim.entry_id, None)
            metrics.GROUPS.labels("scored" if first else "repeated").inc()

    async def _to_dead(self, claim: Claim, prompt: Prompt | None, kind: str, cause: str) -> None:
        """Hand a group over to `dead`. kind: one of services.metrics.CAUSES_OF_DEATH. cause: in words."""
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
        if first:
            DEAD_GROUPS.labels("verifier", kind).inc()

    async def _call(self, method: Callable[..., R], *arguments: object) -> R:
        """Calls a stream's method in a thread. Raises StreamError once the worker was asked to stop.

        Waits for: the stream server.
        Until: no deadline while it is away; each call has the connection's.
        Ended by: an answer, or the stop signal and retry.LAST_TRIES more tries.
        Metric: ratchet_waiting{room="verifier", awaiting="streams"} between tries.
        """
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


def _asked_about(grader: str, trajectory: Trajectory) -> str:
    """What the grader reads: the response, or what the environment gave for the conversation."""
    if grader != "environment":
        return trajectory.text
    return "" if trajectory.reward is None else repr(trajectory.reward)


def items_of(group: Group) -> tuple[ScoreItem, ...]:
    """One item for each trajectory, in order."""
    prompt = group.prompt
    return tuple(
        ScoreItem(
            id=f"{prompt.group_id}/{index}",
            grader=prompt.grader,
            response=_asked_about(prompt.grader, trajectory),
            reference=prompt.reference,
            options=prompt.options,
            response_tokens=len(trajectory.token_ids),
        )
        for index, trajectory in enumerate(group.trajectories)
    )
