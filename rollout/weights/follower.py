"""Follows the learner's weights: joins each generation, swaps in each version, proves it, and says so.

A replica takes prompts only while `ready`: it holds proven weights, and nobody has told it that others hold newer ones. All of
this runs while the sampling loop goes on; only the swap itself stops sampling. A new generation ends what is under way for the
one before, so that one member that hangs holds nobody up.

Outside the group (it has just started, was late, or its lease ran out while it was suspended or cut off) a replica waits until
the learner's offer names it. It then fetches the newest version by itself, proves it by the same probe and samples again; with
the next version it is in the group. It ends after `rejoin_deadline_s` without proven weights. The learner's half is in
learner/publish/.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from rollout.engine import InferenceEngine, SwapReport
from rollout.weights.fetch import fetch_manifest
from rollout.weights.probing import on_disk, probed
from rollout.weights.words import Words
from services.clock import Deadline, now_s
from services.config.deadlines import DeadlinesConfig
from services.errors import DeadlineExceeded, InputError, WeightSyncError, WireError
from services.weights.gap import is_within
from services.weights.membership import Membership
from services.wire.membership import Confirmation
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer

log = logging.getLogger("ratchet.rollout")

LOOK_EVERY_S = 1.0
"""How often a replica looks at the learner's offer, and at what became of its own work."""


def rejoin_deadline_s(deadlines: DeadlinesConfig) -> float:
    """How long a replica goes on without proven weights before it gives up and is started again, in seconds.

    It is left out for one lease at its first failure and for two at the next; then a generation has to form. If it is
    still outside after that, and could not fetch the weights either, waiting does not mend it.
    """
    return 4 * deadlines.lease_s + deadlines.weight_join_s


@dataclass(frozen=True)
class _Proved:
    """The version that a replica has proved last."""

    learner: str
    policy_version: int
    digests: tuple[str, ...]


class WeightFollower:
    """One replica's end of the weight channel."""

    def __init__(
        self,
        engine: InferenceEngine,
        membership: Membership,
        *,
        replica_id: str,
        incarnation: str,
        deadlines: DeadlinesConfig,
    ) -> None:
        """Follows what is announced from now on."""
        self._engine = engine
        self._membership = membership
        self._replica_id = replica_id
        self._incarnation = incarnation
        self._words = Words(membership, replica_id, incarnation)
        self._transfer_s = deadlines.weight_transfer_s
        self._rejoin_s = rejoin_deadline_s(deadlines)
        self._reader = membership.announcements()
        self._work: asyncio.Task[None] | None = None  # a join, a transfer or a fetch
        self._met: Rendezvous | None = None  # the last generation that was announced with this replica in it
        self._generation: int | None = None  # None: in no generation
        self._waits_for: int | None = None  # the generation whose members a join or a transfer waits for now
        self._outside_since_s: float | None = None  # None: never outside since the last join
        self._proved: _Proved | None = None
        self._trouble = ""  # why the last fetch failed, as far as the log has it
        self.ready = asyncio.Event()
        """Set while the replica holds proven weights and does not know of newer ones that others sample under."""

    @property
    def pg_generation(self) -> int | None:
        """The generation that this replica is in; None outside."""
        return self._generation

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Follow the learner until `stopping`.

        Raises WeightSyncError if this replica stays outside the process group without proven weights, EngineFailed if the engine
        is dead: the replica then ends and is started again.

        Waits for: the learner's announcements, of generations and of versions, and its offer.
        Until: it is stopped, or `rejoin_deadline_s` if the replica is outside the process group and not ready.
        Ended by: `stopping`, the deadline, or a dead engine.
        Metric: ratchet_rollout_ready is 0 outside the process group, and
            ratchet_waiting{room="rollout", awaiting="weights"} is 1 there.
        """
        try:
            while not stopping():
                messages = await asyncio.to_thread(lambda: list(self._reader.read(block_s=LOOK_EVERY_S)))
                await self._heed(_newest(messages))
                await self._heed_offer()
                if self._work is not None and self._work.done():
                    await self._work
                outside_s = now_s() - self._outside_since_s if self._outside_since_s is not None else 0.0
                if outside_s > self._rejoin_s and not self.ready.is_set() and not self._is_busy():
                    raise WeightSyncError(
                        f"replica {self._replica_id} was left out of the process group for {self._rejoin_s:.0f} s; "
                        "the learner's log says why; start the replica again"
                    )
        finally:
            await self._give_up_work()

    async def fence(self) -> None:
        """Take no more prompts until the weights are proved again: for longer than a lease, nobody has heard of this replica."""
        log.warning(
            "this replica was not heard of for longer than its lease; it proves its weights again before it goes on"
        )
        await self._give_up_work()
        self._leave_group()

    async def _heed(self, messages: list[Rendezvous | WeightManifest]) -> None:
        """Begin what was announced: a rendezvous ends what is under way, a version comes after it."""
        if messages and isinstance(first := messages[0], Rendezvous):
            if self._met == first:  # announced again: the server had lost it, and perhaps our word
                await self._words.repeat()
            else:
                await self._give_up_work()
                self._met = first
                self._begin(self._join(first))
        for message in messages:
            if isinstance(message, WeightManifest):
                self._begin(self._swap(message))

    async def _heed_offer(self) -> None:
        """Begin to fetch what the learner offers, if it names this replica: its generation then goes on without it."""
        try:
            offer = await asyncio.to_thread(self._membership.offered)
        except WireError as fault:
            self._say_once(f"the learner's offer cannot be read: {fault}")
            return
        if offer is None or offer.alone.get(self._replica_id) != self._incarnation:
            return
        if self._is_busy():
            if self._waits_for is None or offer.pg_generation < self._waits_for:
                return  # it fetches already, or swaps; or the offer is older than the meeting
            await self._give_up_work()  # nobody sends to it, and a network that was cut does not say so
        if self._generation is not None:
            log.warning("generation %s goes on without this replica", self._generation)
            self._generation = None
        proved = self._proved
        if (
            proved is None
            or not self.ready.is_set()
            or (proved.learner, proved.policy_version)
            != (
                offer.learner,
                offer.policy_version,
            )
        ):
            self._begin(self._catch_up(offer))

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        """Do this once what is under way is done."""
        before = self._work

        async def after() -> None:
            if before is not None:
                await before
            await step

        self._work = asyncio.create_task(after())
        self._work.add_done_callback(lambda _: step.close())  # where it never began

    def _is_busy(self) -> bool:
        return self._work is not None and not self._work.done()

    async def _give_up_work(self) -> None:
        """End what is under way. A swap that has begun is done first; weights that it brought are not proved."""
        work, self._work = self._work, None
        if work is None:
            return
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled() and (fault := work.exception()) is not None:
            raise fault
        if self._proved is None or self._engine.policy_version != self._proved.policy_version:
            self.ready.clear()

    async def _join(self, rendezvous: Rendezvous) -> None:
        """Join a generation and confirm it, or say why not.

        Waits for: every member of the generation.
        Until: rendezvous.timeout_s (deadlines.weight_join_s).
        Ended by: the generation being formed, the deadline, a member that leaves, or the announcement of the next generation.
        Metric: ratchet_waiting{room="rollout", awaiting="the process group"}.
        """
        if self._replica_id not in rendezvous.first_ranks:
            log.warning("generation %d forms without this replica", rendezvous.pg_generation)
            self._leave_group()
            return
        fault = None
        try:
            if rendezvous.backend != "http":
                with self._waiting_for(rendezvous.pg_generation):
                    await self._engine.join(rendezvous, self._replica_id)
            self._generation = rendezvous.pg_generation
            self._outside_since_s = None
        except WeightSyncError as error:
            fault = str(error)
            log.warning("did not join generation %d: %s", rendezvous.pg_generation, error)
            self._leave_group()
        await self._words.say("joined", rendezvous.pg_generation, self._engine.policy_version, fault=fault)

    async def _swap(self, manifest: WeightManifest) -> None:
        """Take in one version, prove it by its probe and confirm it, or say why not.

        Waits for: the learner's broadcast, or what is fetched in its place.
        Until: deadlines.weight_transfer_s.
        Ended by: the swap and its probe, the deadline, a damaged or broken transfer, or the announcement of the next generation.
        Metric: ratchet_waiting{room="rollout", awaiting="a weight transfer"}.
        """
        if self._met is None or manifest.pg_generation != self._generation:
            return
        if self._words.has_confirmed(manifest):
            await self._words.repeat()
            return
        try:
            offer = await asyncio.to_thread(self._membership.offered) if self._met.backend == "http" else None
            await self._take_in(manifest, self._met.learner, offer)
        except (WeightSyncError, DeadlineExceeded, InputError) as error:
            log.warning("policy version %d did not arrive: %s", manifest.policy_version, error)
            self._leave_group()
            await self._words.say("swapped", manifest.pg_generation, manifest.policy_version, fault=str(error))
            if isinstance(error, InputError):  # the next try would end the same way
                raise

    async def _catch_up(self, offer: WeightOffer) -> None:
        """Fetch the version that is offered, unless this replica holds it, prove it and say so.

        Waits for: the learner's weight server.
        Until: deadlines.weight_transfer_s; then it is tried again.
        Ended by: the swap and its probe, the deadline, a refusal, or the announcement of a generation.
        Metric: ratchet_waiting{room="rollout", awaiting="a weight transfer"}.
        """
        try:
            deadline = Deadline.after(self._transfer_s, "weights from the learner's server")
            manifest = await asyncio.to_thread(fetch_manifest, offer.source, deadline)
            proved = self._proved
            if (
                proved is not None
                and self.ready.is_set()
                and proved.learner == offer.learner
                and manifest.policy_version <= proved.policy_version
            ):
                return  # others still fetch an older one
            await self._take_in(manifest, offer.learner, offer)
        except (WeightSyncError, DeadlineExceeded, WireError) as error:
            self._say_once(f"could not catch up by itself: {error}")
            self._leave_group()
            return
        self._trouble = ""
        log.info("caught up by itself: policy version %d", manifest.policy_version)

    async def _take_in(self, manifest: WeightManifest, learner: str, offer: WeightOffer | None) -> None:
        """Receive one version, or fetch it from where the offer says, prove it and confirm it; only proved where it is held
        already. Raises WeightSyncError, DeadlineExceeded or InputError."""
        deadline = Deadline.after(self._transfer_s, "weights from the learner")
        digests = tuple(bucket.digest for bucket in manifest.buckets)
        held = self._proved
        before = None
        if (
            offer is not None
            and held is not None
            and (held.policy_version, held.digests)
            == (
                self._engine.policy_version,
                digests,
            )
            and held.policy_version == manifest.policy_version
        ):
            report = SwapReport(manifest.policy_version, 0.0, 0.0, self._engine.running_sequences, "exchange")
        else:
            if manifest.pg_generation == 0:  # outside the group others sample under this version already
                self.ready.clear()
            before = await on_disk(self._engine, manifest, deadline)
            with self._waiting_for(manifest.pg_generation) if offer is None else nullcontext():
                report = await self._engine.stage_and_swap(manifest, deadline, offer)
        after = await probed(self._engine, manifest, deadline)
        if is_within(after.gap, manifest.bound):
            self._proved = _Proved(learner, manifest.policy_version, digests)
            self.ready.set()
        else:
            self.ready.clear()  # the learner stops the run when it reads the gap
        await self._words.say_swapped(manifest, report, before, after)

    @contextmanager
    def _waiting_for(self, pg_generation: int) -> Iterator[None]:
        self._waits_for = pg_generation
        try:
            yield
        finally:
            self._waits_for = None

    def _leave_group(self) -> None:
        self._generation = None
        self._outside_since_s = self._outside_since_s or now_s()
        self.ready.clear()

    def _say_once(self, trouble: str) -> None:
        """Log what goes wrong again and again, each time that it changes."""
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble


def _newest(messages: list[Rendezvous | WeightManifest | Confirmation]) -> list[Rendezvous | WeightManifest]:
    """The messages still worth acting on: the last rendezvous and what follows it, each message once."""
    kept: list[Rendezvous | WeightManifest] = []
    for message in messages:
        if isinstance(message, Rendezvous):
            kept = [message]
        elif isinstance(message, WeightManifest) and message not in kept:
            kept.append(message)
    return kept
