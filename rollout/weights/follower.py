"""Follows the learner's weights: joins each generation, swaps in each version, proves it, and says so.

A replica takes prompts only while `ready`: it holds weights of the current generation and its probe came out right.
All of this runs while the sampling loop goes on; only the swap itself stops sampling.

Weights missing at one replica, seen from the replica: its join fails after deadlines.weight_join_s and its transfer
after deadlines.weight_transfer_s, the learner is told why, and sampling stops. It then waits for a generation that
counts it in, and ends after `rejoin_deadline_s`. The learner's half is in learner/publish/.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from rollout.engine import BASE_VERSION, InferenceEngine, SwapReport
from rollout.metrics import POLICY_VERSION, SAMPLING_GAP_SECONDS, SWAPS, TRANSFER_SECONDS, WEIGHT_GAP_NATS
from services.clock import Deadline, now_s
from services.config.deadlines import DeadlinesConfig
from services.errors import InputError, WeightSyncError
from services.weights.gap import gap_between, in_words, is_within
from services.weights.membership import Membership
from services.wire.membership import Confirmation
from services.wire.weights import Gap, Rendezvous, WeightManifest

log = logging.getLogger("ratchet.rollout")


def rejoin_deadline_s(deadlines: DeadlinesConfig) -> float:
    """How long a replica stays outside every generation before it gives up and is started again, in seconds.

    It is left out for one lease at its first failure and for two at the next; then a generation has to form. If it is
    still outside after that, waiting does not mend it.
    """
    return 4 * deadlines.lease_s + deadlines.weight_join_s


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
        self._transfer_s = deadlines.weight_transfer_s
        self._rejoin_s = rejoin_deadline_s(deadlines)
        self._reader = membership.announcements()
        self._generation: int | None = None  # None: in no generation
        self._outside_since_s: float | None = None  # None: never outside since the last join
        self.ready = asyncio.Event()
        """Set while the replica holds proven weights of the current generation."""

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Follow the learner until `stopping`.

        Raises WeightSyncError if this replica stays outside the process group, EngineFailed if the engine is dead: the
        replica then ends and is started again.

        Waits for: the learner's announcements, of generations and of versions.
        Until: it is stopped, or `rejoin_deadline_s` if the replica is outside the process group.
        Ended by: `stopping`, the deadline, or a dead engine.
        Metric: ratchet_rollout_ready is 0 outside the process group, and
            ratchet_waiting{room="rollout", awaiting="weights"} is 1 there.
        """
        while not stopping():
            messages = await asyncio.to_thread(lambda: list(self._reader.read(block_s=1.0)))
            for message in _newest(messages):
                if isinstance(message, Rendezvous):
                    await self._join(message)
                else:
                    await self._swap(message)
            if self._outside_since_s is not None and now_s() - self._outside_since_s > self._rejoin_s:
                raise WeightSyncError(
                    f"replica {self._replica_id} was left out of the process group for {self._rejoin_s:.0f} s; "
                    "the learner's log says why; start the replica again"
                )

    async def _join(self, rendezvous: Rendezvous) -> None:
        """Join a generation and confirm it, or say why not.

        Waits for: every member of the generation.
        Until: rendezvous.timeout_s (deadlines.weight_join_s).
        Ended by: the generation being formed, the deadline, or a member that leaves.
        Metric: ratchet_waiting{room="rollout", awaiting="the process group"}.
        """
        if self._replica_id not in rendezvous.first_ranks:
            log.warning("generation %d forms without this replica", rendezvous.pg_generation)
            self._leave_group()
            return
        fault = None
        try:
            await self._engine.join(rendezvous, self._replica_id)
            self._generation = rendezvous.pg_generation
            self._outside_since_s = None
        except WeightSyncError as error:
            fault = str(error)
            log.warning("did not join generation %d: %s", rendezvous.pg_generation, error)
            self._leave_group()
        await self._confirm("joined", rendezvous.pg_generation, self._engine.policy_version, fault=fault)

    async def _swap(self, manifest: WeightManifest) -> None:
        """Take in one version, prove it by its probe and confirm it, or say why not.

        Waits for: the learner's broadcast.
        Until: deadlines.weight_transfer_s.
        Ended by: the swap and its probe, the deadline, or a damaged or broken transfer.
        Metric: ratchet_waiting{room="rollout", awaiting="a weight transfer"}.
        """
        if manifest.pg_generation != self._generation:
            return
        try:
            deadline = Deadline.after(self._transfer_s, "weights from the learner")
            before = await self._on_disk(manifest, deadline)
            report = await self._engine.stage_and_swap(manifest, deadline)
            after = await self._probe(manifest, deadline)
        except (WeightSyncError, InputError) as error:
            log.warning("policy version %d did not arrive: %s", manifest.policy_version, error)
            self._leave_group()
            await self._confirm("swapped", manifest.pg_generation, manifest.policy_version, fault=str(error))
            if isinstance(error, InputError):  # the next try would end the same way
                raise
            return
        if is_within(after.gap, manifest.bound):
            self.ready.set()
        else:
            self.ready.clear()  # the learner stops the run when it reads the gap
        await self._confirm_swap(manifest, report, before, after)

    async def _probe(self, manifest: WeightManifest, deadline: Deadline) -> "_Probed":
        """Compare engine and learner by the first probe, and by the others where it says that they differ: one token by which
        rounding goes far is not wrong weights, which differ at other tokens too."""
        probed = _Probed([], gap_between((), ()))
        for number, probe in enumerate(manifest.probes):
            logp = await self._engine.probe(probe.token_ids, deadline)
            probed = _Probed([*probed.logps, logp], gap_between(probe.logp, logp))
            if is_within(probed.gap, manifest.bound):
                break
            log.warning(
                "policy version %d: probe %d differs by %s", manifest.policy_version, number + 1, in_words(probed.gap)
            )
        return probed

    async def _confirm_swap(
        self, manifest: WeightManifest, report: SwapReport, before: list[list[float]] | None, after: "_Probed"
    ) -> None:
        """Count a swap and tell the learner what it took. before: the probes under the weights on disk, if they were made."""
        POLICY_VERSION.set(manifest.policy_version)
        SWAPS.labels(report.kind).inc()
        TRANSFER_SECONDS.observe(report.transfer_s)
        SAMPLING_GAP_SECONDS.observe(report.pause_s)
        WEIGHT_GAP_NATS.set(after.gap.largest_nats)
        kernel_gap = moved = None
        if before is not None:
            on_disk = [logp for probe in manifest.probes for logp in probe.disk_logp]
            kernel_gap = gap_between(on_disk, list(chain.from_iterable(before)))
            if manifest.policy_version == 0:  # the same weights as on disk
                moved = max(gap_between(*pair).largest_nats for pair in zip(before, after.logps, strict=False))
        await self._confirm(
            "swapped",
            manifest.pg_generation,
            manifest.policy_version,
            transfer_s=report.transfer_s,
            pause_s=report.pause_s,
            running_sequences=report.running_sequences,
            gap=after.gap,
            kernel_gap=kernel_gap,
            moved_nats=moved,
        )

    async def _on_disk(self, manifest: WeightManifest, deadline: Deadline) -> list[list[float]] | None:
        """The probes' log-probs under the weights that the engine has read from disk; None once it has swapped."""
        if self._engine.policy_version != BASE_VERSION or not all(probe.disk_logp for probe in manifest.probes):
            return None
        return [await self._engine.probe(probe.token_ids, deadline) for probe in manifest.probes]

    def _leave_group(self) -> None:
        self._generation = None
        self._outside_since_s = self._outside_since_s or now_s()
        self.ready.clear()

    async def _confirm(self, phase: str, pg_generation: int, policy_version: int, **facts: object) -> None:
        confirmation = Confirmation(
            replica_id=self._replica_id,
            incarnation=self._incarnation,
            phase=phase,  # type: ignore[arg-type]
            pg_generation=pg_generation,
            policy_version=policy_version,
            **facts,  # type: ignore[arg-type]
        )
        await asyncio.to_thread(self._membership.confirm, confirmation)


def _newest(messages: list[Rendezvous | WeightManifest | Confirmation]) -> list[Rendezvous | WeightManifest]:
    """The messages still worth acting on: the last rendezvous and what follows it, each message once."""
    kept: list[Rendezvous | WeightManifest] = []
    for message in messages:
        if isinstance(message, Rendezvous):
            kept = [message]
        elif isinstance(message, WeightManifest) and message not in kept:
            kept.append(message)
    return kept


@dataclass(frozen=True)
class _Probed:
    """What the engine said of the probes after a swap."""

    logps: list[list[float]]
    """The log-probs of each probe that was made."""
    gap: Gap
    """The gap of the last one, on which the verdict is."""
