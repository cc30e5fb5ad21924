"""The sampling loop: claim prompts, sample groups, hand them over; keep the engine full.

Evaluation prompts go before training prompts. The loop ends when asked to, and gives back what it claimed and did not
hand over; after an error that is left lying, and claimed again by whoever comes next.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field

from rollout.engine import InferenceEngine
from rollout.metrics import FINISHED, GROUP_SECONDS, GROUPS, RUNNING, SAMPLED_TOKENS
from services.clock import now_s
from services.errors import InputError, StreamError, WireError
from services.metrics import WAIT_SECONDS, waiting
from services.streams import Claim, Stream
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup
from services.wire.trajectory import Group

log = logging.getLogger("ratchet.rollout")

POLL_S = 0.1
"""Longest wait on one prompts stream: bounds how late the other one is looked at."""


@dataclass(frozen=True)
class RolloutStreams:
    """In order of precedence, then where results go."""

    evaluation_prompts: Stream
    prompts: Stream
    trajectories: Stream
    dead: Stream


@dataclass
class BusyTime:
    """Seconds with at least one group in flight, and since when the replica has been ready."""

    ready_at_s: float | None = None
    busy_s: float = 0.0
    _busy_since_s: float | None = field(default=None)

    def observe(self, busy: bool) -> None:
        now = now_s()
        if busy and self._busy_since_s is None:
            self._busy_since_s = now
        elif not busy and self._busy_since_s is not None:
            self.busy_s += now - self._busy_since_s
            self._busy_since_s = None

    def totals(self) -> tuple[float, float]:
        """(seconds busy, seconds since first ready)"""
        now = now_s()
        busy_s = self.busy_s + (now - self._busy_since_s if self._busy_since_s is not None else 0.0)
        return busy_s, now - self.ready_at_s if self.ready_at_s is not None else 0.0


class SamplingLoop:
    """Keeps up to max_concurrent_sequences in the engine."""

    def __init__(
        self,
        engine: InferenceEngine,
        streams: RolloutStreams,
        ready: asyncio.Event,
        *,
        replica_id: str,
        max_concurrent_sequences: int,
        group_size: int,
        max_deliveries: int,
    ) -> None:
        self._engine, self._streams, self._ready = engine, streams, ready
        self._replica_id, self._max_deliveries = replica_id, max_deliveries
        self._capacity, self._group_size = max_concurrent_sequences, group_size
        self._in_flight: dict[asyncio.Task[None], tuple[Stream, Claim, int]] = {}
        self.busy = BusyTime()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises EngineFailed, or StreamError when the server stays away."""
        try:
            while not stop.is_set():
                await self._wait_until_ready(stop)
                claimed = await self._claim()
                self.busy.observe(bool(self._in_flight))
                if not claimed and self._in_flight:
                    await self._some_finished()
                for task in [task for task in self._in_flight if task.done()]:
                    del self._in_flight[task]
                    task.result()
        finally:
            await self._abandon()
        # Only here, after a clean stop: a release does not count as a delivery, and a prompt that kills its engine would
        # go round for ever.
        await self._release()

    async def renew(self, every_s: float, stop: asyncio.Event) -> None:
        """Says of everything in flight that it is being worked on, until `stop`."""
        while not stop.is_set():
            await asyncio.sleep(every_s)
            for stream in (self._streams.evaluation_prompts, self._streams.prompts):
                claims = [claim for owner, claim, _ in self._in_flight.values() if owner is stream]
                if claims:
                    await asyncio.to_thread(stream.renew, claims)

    async def _wait_until_ready(self, stop: asyncio.Event) -> None:
        while not self._ready.is_set() and not stop.is_set():
            with waiting("rollout", "weights"), suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), timeout=0.5)
        if self.busy.ready_at_s is None:
            self.busy.ready_at_s = now_s()

    async def _claim(self) -> bool:
        """Whether anything new went to the engine."""
        free_groups = (self._capacity - sum(size for _, _, size in self._in_flight.values())) // self._group_size
        if free_groups < 1:
            return False
        for stream in (self._streams.evaluation_prompts, self._streams.prompts):
            block_s = 0.0 if self._in_flight or stream is self._streams.evaluation_prompts else POLL_S
            start = now_s()
            claims = await asyncio.to_thread(stream.claim, free_groups, block_s)
            if block_s and not claims:
                WAIT_SECONDS.labels("rollout", "prompts").inc(now_s() - start)
            for claim in claims:
                await self._begin(stream, claim)
            if claims:
                return True
        return False

    async def _begin(self, stream: Stream, claim: Claim) -> None:
        try:
            prompt = decode(claim.payload, Prompt)
        except WireError as fault:
            await self._bury(stream, claim, None, str(fault))
            return
        if claim.deliveries > self._max_deliveries:
            await self._bury(stream, claim, prompt, f"claimed {claim.deliveries} times and never sampled to the end")
            return
        task = asyncio.create_task(self._sample(stream, claim, prompt))
        self._in_flight[task] = (stream, claim, prompt.group_size)

    async def _sample(self, stream: Stream, claim: Claim, prompt: Prompt) -> None:
        start = now_s()
        RUNNING.inc(prompt.group_size)
        try:
            trajectories = await self._engine.sample(prompt)
        except InputError as fault:
            await self._bury(stream, claim, prompt, str(fault))
            return
        finally:
            RUNNING.dec(prompt.group_size)
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

    async def _bury(self, stream: Stream, claim: Claim, prompt: Prompt | None, cause: str) -> None:
        log.error("group %s goes to dead: %s", prompt.group_id if prompt else claim.entry_id, cause)
        dead = DeadGroup(
            prompt=prompt,
            group_id=prompt.group_id if prompt else claim.entry_id,
            stage=stream.name,
            cause=cause,
            payload=claim.payload,
        )
        await asyncio.to_thread(stream.hand_over, claim, self._streams.dead, encode(dead))
        GROUPS.labels("dead").inc()

    async def _some_finished(self) -> None:
        """Until a group is done; not longer than POLL_S while there is room for more, so that new prompts are seen."""
        await asyncio.wait(self._in_flight, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)

    async def _abandon(self) -> None:
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._in_flight.clear()

    async def _release(self) -> None:
        for stream in (self._streams.evaluation_prompts, self._streams.prompts):
            with suppress(StreamError):  # they are claimed again all the same, after their idle time
                await asyncio.to_thread(stream.release)
