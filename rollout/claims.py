"""What a replica has claimed: prompts on loan from the streams, each until its result is handed over.

Prompts are claimed by many, evaluation first. Results go back by many, too: whatever has come together while the last ones were
on their way, which is at least what the engine finished in one step.
"""

import asyncio
import logging
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import groupby

from rollout.metrics import GROUP_SECONDS, GROUPS
from services.clock import now_s
from services.errors import StreamError, WireError
from services.metrics import DEAD_GROUPS, begin_dead_groups, waiting
from services.streams import Claim, Stream
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup
from services.wire.trajectory import Group

log = logging.getLogger("ratchet.rollout")

POLL_S = 0.1
"""Longest wait on the stream of training prompts. It bounds how late evaluation prompts are seen."""
AT_ONCE_BYTES = 2**20
"""Results that go over in one command. Larger commands make the server slower than several, and hold up the other services."""


@dataclass(frozen=True)
class RolloutStreams:
    """The streams that prompts come from, first served first, and those that results go to."""

    evaluation_prompts: Stream
    prompts: Stream
    trajectories: Stream
    dead: Stream


@dataclass(frozen=True, slots=True, eq=False)
class ClaimedPrompt:
    """A prompt that this replica owes a result for."""

    stream: Stream
    claim: Claim
    prompt: Prompt
    at_s: float = field(default_factory=now_s)
    """When it was claimed, in monotonic seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """Something to hand over for a claim."""

    stream: Stream
    claim: Claim
    to: Stream
    payload: bytes
    claimed: ClaimedPrompt | None = None
    """None: nothing was sampled."""
    cause: str | None = None
    """Why it goes to the dead stream: one of services.metrics.CAUSES_OF_DEATH."""


class Claims:
    """Claims prompts and hands over what came of them."""

    def __init__(self, streams: RolloutStreams, *, max_deliveries: int) -> None:
        """max_deliveries: a prompt that was claimed more often goes to the dead stream."""
        self._streams = streams
        self._max_deliveries = max_deliveries
        self._owed: dict[Stream, dict[str, Claim]] = {streams.evaluation_prompts: {}, streams.prompts: {}}
        self._next_evaluation_s = 0.0  # monotonic; when to look for evaluation prompts again
        self._results: list[_Result] = []
        self._has_results = asyncio.Event()
        self._closing = False
        begin_dead_groups("rollout")

    async def take(self, groups: int, *, idle: bool) -> list[ClaimedPrompt]:
        """Up to this many prompts to sample. idle: there is nothing else to do, which the metric then shows.

        Waits for: prompts.
        Until: 0.1 s (POLL_S); the loop then asks again until it is stopped.
        Ended by: a prompt, or the end of that time.
        Metric: ratchet_waiting{room="rollout", awaiting="prompts"}, if nothing is in flight.
        """
        if now_s() >= self._next_evaluation_s:
            claimed = await self._claim(self._streams.evaluation_prompts, groups, 0.0)
            if len(claimed) < groups:  # else there are probably more
                self._next_evaluation_s = now_s() + POLL_S
            if claimed:
                return claimed
        with waiting("rollout", "prompts") if idle else nullcontext():
            return await self._claim(self._streams.prompts, groups, POLL_S)

    async def _claim(self, stream: Stream, groups: int, block_s: float) -> list[ClaimedPrompt]:
        """Claim; what cannot be read or was claimed too often goes to the dead stream."""
        claims = await asyncio.to_thread(stream.claim, groups, block_s)
        claimed = []
        for claim in claims:
            self._owed[stream][claim.entry_id] = claim
            try:
                prompt = decode(claim.payload, Prompt)
            except WireError as fault:
                self._bury(stream, claim, None, "unreadable", str(fault))
                continue
            if claim.deliveries > self._max_deliveries:
                text = f"claimed {claim.deliveries} times and never sampled to the end"
                self._bury(stream, claim, prompt, "undeliverable", text)
                continue
            claimed.append(ClaimedPrompt(stream, claim, prompt))
        return claimed

    def hand_over(self, claimed: ClaimedPrompt, group: Group) -> None:
        """Hand the group over with the next ones."""
        self._put(_Result(claimed.stream, claimed.claim, self._streams.trajectories, encode(group), claimed))

    def refuse(self, claimed: ClaimedPrompt, cause: str, kind: str = "refused") -> None:
        """Hand the prompt over to the dead stream: nothing can be sampled for it. cause: in words. kind: one of
        services.metrics.CAUSES_OF_DEATH; by default that the engine does not take it."""
        self._bury(claimed.stream, claimed.claim, claimed.prompt, kind, cause)

    def _bury(self, stream: Stream, claim: Claim, prompt: Prompt | None, kind: str, cause: str) -> None:
        group_id = prompt.group_id if prompt else claim.entry_id
        log.error("group %s goes to dead: %s", group_id, cause)
        dead = DeadGroup(prompt=prompt, group_id=group_id, stage=stream.name, cause=cause, payload=claim.payload)
        self._put(_Result(stream, claim, self._streams.dead, encode(dead), cause=kind))

    def _put(self, result: _Result) -> None:
        self._results.append(result)
        self._has_results.set()

    async def run(self) -> None:
        """Hand over what there is, until `close`. Raises StreamError if the stream server stays away.

        Waits for: results.
        Until: it is closed; there is no deadline.
        Ended by: a result, or `close`.
        Metric: none; the engine works meanwhile, or ratchet_waiting{room="rollout", awaiting="prompts"} is 1.
        """
        while not (self._closing and not self._results):
            await self._has_results.wait()
            self._has_results.clear()
            results = self._results
            self._results = []
            for batch in _batches(results):
                await self._hand_over(batch)

    def close(self) -> None:
        """End `run` when it has handed over everything."""
        self._closing = True
        self._has_results.set()

    async def _hand_over(self, batch: list[_Result]) -> None:
        """Hand over results of one stream to one other stream."""
        stream = batch[0].stream
        pairs = [(result.claim, result.payload) for result in batch]
        outcomes = await asyncio.to_thread(stream.hand_over_many, pairs, batch[0].to)
        for result, handed_over in zip(batch, outcomes, strict=True):
            self._owed[stream].pop(result.claim.entry_id, None)
            outcome = "dead" if result.cause else "handed_over"
            GROUPS.labels(outcome if handed_over else "overtaken").inc()
            if handed_over and result.cause:
                DEAD_GROUPS.labels("rollout", result.cause).inc()
            if result.claimed is not None:
                GROUP_SECONDS.observe(now_s() - result.claimed.at_s)

    async def renew(self, every_s: float, stop: asyncio.Event) -> None:
        """Keep everything owed from being taken over, until `stop`. every_s: below the idle time."""
        while not stop.is_set():
            await asyncio.sleep(every_s)
            for stream, owed in self._owed.items():
                if owed:
                    await asyncio.to_thread(stream.renew, list(owed.values()))

    async def release(self) -> None:
        """Give back whatever is still owed, at a clean stop."""
        for stream in self._owed:
            with suppress(StreamError):  # then it is claimed again after its idle time
                await asyncio.to_thread(stream.release)


def _batches(results: list[_Result]) -> list[list[_Result]]:
    """The results in commands: each of one stream to one stream, and of no more than AT_ONCE_BYTES unless it is one result."""
    batches: list[list[_Result]] = []
    for _, same_way in groupby(
        sorted(results, key=lambda result: (result.stream.name, result.to.name)),
        key=lambda result: (result.stream.name, result.to.name),
    ):
        size = AT_ONCE_BYTES
        for result in same_way:
            if size + len(result.payload) > AT_ONCE_BYTES:
                batches.append([])
                size = 0
            batches[-1].append(result)
            size += len(result.payload)
    return batches
