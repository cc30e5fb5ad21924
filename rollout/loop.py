"""The sampling loop: claim prompts, sample groups, hand them over; keep the engine full.

Evaluation prompts go before training prompts. When the loop is stopped it gives back what it claimed and did not hand
over. After an error those claims stay as they are, and another replica claims them after their idle time.
"""

import asyncio
import logging
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from rollout.conversation.conversations import ConversationFailed, Conversations
from rollout.engine import InferenceEngine
from rollout.metrics import FINISHED, GROUP_SECONDS, GROUPS, RUNNING, SAMPLED_TOKENS
from services.clock import now_s
from services.errors import InputError, StreamError, WireError
from services.metrics import DEAD_GROUPS, BusyTime, begin_dead_groups, waiting
from services.streams import Claim, Stream
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup
from services.wire.trajectory import Group, Trajectory

log = logging.getLogger("ratchet.rollout")

POLL_S = 0.1
"""Longest wait on one prompts stream. It bounds how late the other stream is looked at."""


@dataclass(frozen=True)
class RolloutStreams:
    """The streams that prompts come from, first served first, and those that results go to."""

    evaluation_prompts: Stream
    prompts: Stream
    trajectories: Stream
    dead: Stream


class SamplingLoop:
    """Keeps up to most_sequences begun and not handed over."""

    def __init__(
        self,
        engine: InferenceEngine,
        streams: RolloutStreams,
        ready: asyncio.Event,
        *,
        replica_id: str,
        most_sequences: int,
        group_size: int,
        max_deliveries: int,
        conversations: Conversations | None = None,
    ) -> None:
        """ready: set while the engine holds proven weights. most_sequences: in the engine, or with conversations open ones.
        group_size: of the run, to count how many groups still fit. max_deliveries: a prompt that was claimed more often goes
        to the dead stream. conversations: None where a response answers one prompt."""
        self._engine = engine
        self._streams = streams
        self._ready = ready
        self._replica_id = replica_id
        self._max_deliveries = max_deliveries
        self._capacity = most_sequences
        self._conversations = conversations
        self._group_size = group_size
        self._in_flight: dict[asyncio.Task[None], tuple[Stream, Claim, int]] = {}
        self._busy = BusyTime("rollout")
        self._ready_at_s: float | None = None  # monotonic; None: not ready yet
        begin_dead_groups("rollout")

    def busy_and_ready_s(self) -> tuple[float, float]:
        """Returns (seconds with at least one sequence in the engine, seconds since the replica was first ready)."""
        return self._busy.seconds(), now_s() - self._ready_at_s if self._ready_at_s is not None else 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Sample until `stop`. Raises EngineFailed, or StreamError if the stream server stays away.

        In each turn it claims prompts while there is room in the engine, and hands over the groups that are done.
        """
        try:
            while not stop.is_set():
                await self._wait_until_ready(stop)
                claimed = await self._claim()
                if not claimed and self._in_flight:
                    await self._some_finished()
                for task in [task for task in self._in_flight if task.done()]:
                    del self._in_flight[task]
                    task.result()
        finally:
            await self._abandon()
        # Only after a clean stop: a release does not count as a delivery, so a prompt that kills its engine would go
        # round for ever.
        await self._release()

    async def renew(self, every_s: float, stop: asyncio.Event) -> None:
        """Keep the claims of everything in flight from being taken over, until `stop`. every_s: below the idle time."""
        while not stop.is_set():
            await asyncio.sleep(every_s)
            for stream in (self._streams.evaluation_prompts, self._streams.prompts):
                claims = [claim for owner, claim, _ in self._in_flight.values() if owner is stream]
                if claims:
                    await asyncio.to_thread(stream.renew, claims)

    async def _wait_until_ready(self, stop: asyncio.Event) -> None:
        """Claim nothing without proven weights: return once there are any, or at `stop`.

        Waits for: proven weights of the current generation.
        Until: it is stopped; the follower ends the replica after its `rejoin_deadline_s`.
        Ended by: the follower, or `stop`.
        Metric: ratchet_waiting{room="rollout", awaiting="weights"}; ratchet_rollout_ready is 0.
        """
        while not self._ready.is_set() and not stop.is_set():
            with waiting("rollout", "weights"), suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), timeout=0.5)
        if self._ready_at_s is None:
            self._ready_at_s = now_s()

    async def _claim(self) -> bool:
        """Claim as many prompts as fit and begin to sample them; returns whether there were any.

        Waits for: prompts, if nothing is in flight.
        Until: 0.1 s (POLL_S); the loop then asks again until it is stopped.
        Ended by: a prompt, or the end of that time.
        Metric: ratchet_waiting{room="rollout", awaiting="prompts"}.
        """
        free_groups = (self._capacity - sum(size for _, _, size in self._in_flight.values())) // self._group_size
        if free_groups < 1:
            return False
        for stream in (self._streams.evaluation_prompts, self._streams.prompts):
            block_s = 0.0 if self._in_flight or stream is self._streams.evaluation_prompts else POLL_S
            with waiting("rollout", "prompts") if block_s else nullcontext():
                claims = await asyncio.to_thread(stream.claim, free_groups, block_s)
            for claim in claims:
                await self._begin(stream, claim)
            if claims:
                return True
        return False

    async def _begin(self, stream: Stream, claim: Claim) -> None:
        """Hand a claimed prompt to the engine, or to the dead stream if it cannot be read or keeps failing."""
        try:
            prompt = decode(claim.payload, Prompt)
        except WireError as fault:
            await self._bury(stream, claim, None, "unreadable", str(fault))
            return
        if claim.deliveries > self._max_deliveries:
            text = f"claimed {claim.deliveries} times and never sampled to the end"
            await self._bury(stream, claim, prompt, "undeliverable", text)
            return
        task = asyncio.create_task(self._sample(stream, claim, prompt))
        self._in_flight[task] = (stream, claim, prompt.group_size)

    async def _sample(self, stream: Stream, claim: Claim, prompt: Prompt) -> None:
        """Sample one group and hand it over; a prompt that the engine refuses goes to the dead stream."""
        start = now_s()
        try:
            if self._conversations is None:
                trajectories = await self._in_engine(prompt)
            else:
                prompt, trajectories = await self._conversations.sample(prompt, self._in_engine)
        except (InputError, ConversationFailed) as fault:
            kind = "refused" if isinstance(fault, InputError) else "environment"
            await self._bury(stream, claim, prompt, kind, str(fault))
            return
        seconds = now_s() - start
        group = Group(
            prompt=prompt,
            trajectories=trajectories,
            replica_id=self._replica_id,
        )
        handed_over = await asyncio.to_thread(stream.hand_over, claim, self._streams.trajectories, encode(group))
        GROUPS.labels("handed_over" if handed_over else "overtaken").inc()
        GROUP_SECONDS.observe(seconds)
        for trajectory in trajectories:
            SAMPLED_TOKENS.inc(len(trajectory))
            FINISHED.labels(trajectory.finish_reason).inc()

    async def _in_engine(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        RUNNING.inc(prompt.group_size)
        try:
            with self._busy.working():
                return await self._engine.sample(prompt)
        finally:
            RUNNING.dec(prompt.group_size)

    async def _bury(self, stream: Stream, claim: Claim, prompt: Prompt | None, kind: str, cause: str) -> None:
        """Hand a prompt over to the dead stream. kind: one of services.metrics.CAUSES_OF_DEATH. cause: in words."""
        log.error("group %s goes to dead: %s", prompt.group_id if prompt else claim.entry_id, cause)
        dead = DeadGroup(
            prompt=prompt,
            group_id=prompt.group_id if prompt else claim.entry_id,
            stage=stream.name,
            cause=cause,
            payload=claim.payload,
        )
        handed_over = await asyncio.to_thread(stream.hand_over, claim, self._streams.dead, encode(dead))
        GROUPS.labels("dead" if handed_over else "overtaken").inc()
        if handed_over:
            DEAD_GROUPS.labels("rollout", kind).inc()

    async def _some_finished(self) -> None:
        """Return once a group is done.

        Waits for: the engine.
        Until: 0.1 s (POLL_S), so that new prompts are seen while there is room; the loop then looks again.
        Ended by: a finished group, or the end of that time.
        Metric: ratchet_rollout_running_sequences.
        """
        await asyncio.wait(self._in_flight, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)

    async def _abandon(self) -> None:
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._in_flight.clear()

    async def _release(self) -> None:
        for stream in (self._streams.evaluation_prompts, self._streams.prompts):
            with suppress(StreamError):  # then they are claimed again after their idle time
                await asyncio.to_thread(stream.release)
