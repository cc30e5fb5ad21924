"""The sampling loop: claim prompts, sample groups, hand them over; keep the engine full.

Evaluation prompts go before training prompts. When the loop is stopped it gives back what it claimed and did not hand
over. After an error those claims stay as they are, and another replica claims them after their idle time.
"""

import asyncio
import logging
from contextlib import suppress

from rollout.claims import POLL_S, ClaimedPrompt, Claims, RolloutStreams
from rollout.conversation.conversations import ConversationFailed, Conversations
from rollout.engine import InferenceEngine
from rollout.metrics import FINISHED, RUNNING, SAMPLED_TOKENS
from rollout.pace import Pace
from services.clock import now_s
from services.errors import InputError
from services.metrics import BusyTime, waiting
from services.wire.prompt import Prompt
from services.wire.trajectory import Group, Trajectory

log = logging.getLogger("ratchet.rollout")


class SamplingLoop:
    """Keeps most_sequences begun, and the next groups waiting in the engine."""

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
        self._ready = ready
        self._replica_id = replica_id
        self._capacity = most_sequences
        self._conversations = conversations
        self._group_size = group_size
        self._claims = Claims(streams, max_deliveries=max_deliveries)
        self._in_flight: dict[asyncio.Task[None], int] = {}  # and the sequences of each
        self._some_ended = asyncio.Event()
        self._any_ended = False  # ever
        self._pace = Pace()
        self._busy = BusyTime("rollout")
        self._ready_at_s: float | None = None  # monotonic; None: not ready yet

    def busy_and_ready_s(self) -> tuple[float, float]:
        """Returns (seconds with at least one sequence in the engine, seconds since the replica was first ready)."""
        return self._busy.seconds(), now_s() - self._ready_at_s if self._ready_at_s is not None else 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Sample until `stop`. Raises EngineFailed, or StreamError if the stream server stays away.

        In each turn it claims prompts for the room in the engine; what is sampled is handed over by a task beside it.
        """
        handing_over = asyncio.create_task(self._claims.run(), name="handing over")
        try:
            while not stop.is_set():
                await self._wait_until_ready(stop)
                await self._fill()
                self._look_at_what_ended()
                if handing_over.done():
                    handing_over.result()
        except BaseException:
            handing_over.cancel()
            raise
        finally:
            await self._abandon()
        self._claims.close()
        await handing_over
        # Only after a clean stop: a release does not count as a delivery, so a prompt that kills its engine would go
        # round for ever.
        await self._claims.release()

    async def renew(self, every_s: float, stop: asyncio.Event) -> None:
        """Keep the claims of everything in flight from being taken over, until `stop`. every_s: below the idle time."""
        await self._claims.renew(every_s, stop)

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
        if self._ready_at_s is None and self._ready.is_set():
            self._ready_at_s = now_s()
            log.info("the weights are proven: taking prompts under policy version %d", self._engine.policy_version)

    async def _fill(self) -> None:
        """Begin to sample as many prompts as there is room for."""
        room = (self._capacity - sum(self._in_flight.values())) // self._group_size + self._pace.groups_ahead(now_s())
        if room < 1:
            await self._room()
            return
        for claimed in await self._claims.take(room, idle=not self._in_flight):
            task = asyncio.create_task(self._sample(claimed))
            self._in_flight[task] = claimed.prompt.group_size
            task.add_done_callback(lambda _: self._some_ended.set())

    async def _room(self) -> None:
        """Return once a group is done.

        Waits for: the engine.
        Until: 0.1 s (POLL_S); the loop then looks again until it is stopped.
        Ended by: a finished group, or the end of that time.
        Metric: ratchet_rollout_running_sequences.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._some_ended.wait()

    def _look_at_what_ended(self) -> None:
        """Let go of the groups that are done; raises what ended them if it was a fault."""
        self._some_ended.clear()
        ended = [task for task in self._in_flight if task.done()]
        for task in ended:
            del self._in_flight[task]
            task.result()
        if ended:
            if not self._any_ended:
                self._any_ended = True
                log.info("the first group is sampled")
            self._pace.count(len(ended), now_s())

    async def _sample(self, claimed: ClaimedPrompt) -> None:
        """Sample one group and hand it over; a prompt that the engine refuses goes to the dead stream."""
        prompt = claimed.prompt
        try:
            if self._conversations is None:
                trajectories = await self._in_engine(prompt)
            else:
                prompt, trajectories = await self._conversations.sample(prompt, self._in_engine)
        except InputError as fault:
            self._claims.refuse(claimed, str(fault))
            return
        except ConversationFailed as fault:
            self._claims.refuse(claimed, str(fault), "environment")
            return
        self._claims.hand_over(claimed, Group(prompt=prompt, trajectories=trajectories, replica_id=self._replica_id))
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

    async def _abandon(self) -> None:
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        self._in_flight.clear()
