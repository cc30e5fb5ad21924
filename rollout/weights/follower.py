"""Follows the learner's weights: joins each generation, swaps in each version, proves it, and says so.

A replica takes prompts only while `ready`: it holds weights of the current generation whose probe came out right.
Everything here runs beside the sampling loop; only the swap itself stops sampling.
"""

import asyncio
import logging
import math
from collections.abc import Callable

from rollout.engine import InferenceEngine
from rollout.metrics import POLICY_VERSION, SAMPLING_GAP_SECONDS, SWAPS, TRANSFER_SECONDS, WEIGHT_GAP_NATS
from services.clock import Deadline, now_s
from services.errors import WeightSyncError
from services.weights.membership import Membership
from services.wire.membership import Confirmation
from services.wire.weights import Rendezvous, WeightManifest

log = logging.getLogger("ratchet.rollout")


class WeightFollower:
    """One replica's end of the weight channel."""

    def __init__(
        self,
        engine: InferenceEngine,
        membership: Membership,
        *,
        replica_id: str,
        incarnation: str,
        transfer_s: float,
        max_gap_nats: float,
        excluded_s: float,
    ) -> None:
        """transfer_s: deadline of a broadcast; excluded_s: how long to stay outside a generation before giving up."""
        self._engine, self._membership = engine, membership
        self._replica_id, self._incarnation = replica_id, incarnation
        self._transfer_s, self._max_gap_nats, self._excluded_s = transfer_s, max_gap_nats, excluded_s
        self._reader = membership.announcements()
        self._generation: int | None = None
        self._outside_since_s: float | None = None
        self.ready = asyncio.Event()

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping`. Raises WeightSyncError when this replica stays outside the process group, EngineFailed when
        the engine is dead: the replica then ends, and another takes its place."""
        while not stopping():
            messages = await asyncio.to_thread(lambda: list(self._reader.read(block_s=1.0)))
            for message in _newest(messages):
                if isinstance(message, Rendezvous):
                    await self._join(message)
                else:
                    await self._swap(message)
            if self._outside_since_s is not None and now_s() - self._outside_since_s > self._excluded_s:
                raise WeightSyncError(
                    f"replica {self._replica_id} was left out of the process group for {self._excluded_s:.0f} s; "
                    "the learner's log says why; start the replica again"
                )

    async def _join(self, rendezvous: Rendezvous) -> None:
        if self._replica_id not in rendezvous.first_ranks:
            log.warning("generation %d forms without this replica", rendezvous.pg_generation)
            self._leave_group()
            return
        fault = None
        try:
            await self._engine.join(rendezvous, self._replica_id)
            self._generation, self._outside_since_s = rendezvous.pg_generation, None
        except WeightSyncError as error:
            fault = str(error)
            log.warning("did not join generation %d: %s", rendezvous.pg_generation, error)
            self._leave_group()
        await self._confirm("joined", rendezvous.pg_generation, self._engine.policy_version, fault=fault)

    async def _swap(self, manifest: WeightManifest) -> None:
        if manifest.pg_generation != self._generation:
            return
        try:
            report = await self._engine.stage_and_swap(
                manifest, Deadline.after(self._transfer_s, "weights from the learner")
            )
            gap = _largest_gap(manifest.probe_logp, await self._engine.probe(manifest.probe_token_ids))
        except WeightSyncError as error:
            log.warning("policy version %d did not arrive: %s", manifest.policy_version, error)
            self._leave_group()
            await self._confirm("swapped", manifest.pg_generation, manifest.policy_version, fault=str(error))
            return
        POLICY_VERSION.set(manifest.policy_version)
        SWAPS.inc()
        TRANSFER_SECONDS.observe(report.transfer_s)
        SAMPLING_GAP_SECONDS.observe(report.pause_s)
        WEIGHT_GAP_NATS.set(gap)
        if gap <= self._max_gap_nats:
            self.ready.set()
        else:
            self.ready.clear()  # the learner stops the run when it reads the gap
        await self._confirm(
            "swapped",
            manifest.pg_generation,
            manifest.policy_version,
            transfer_s=report.transfer_s,
            pause_s=report.pause_s,
            running_sequences=report.running_sequences,
            gap_nats=gap,
        )

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
    """Without rendezvous that a later one overtook, their manifests, and repeats of one message."""
    kept: list[Rendezvous | WeightManifest] = []
    for message in messages:
        if isinstance(message, Rendezvous):
            kept = [message]
        elif isinstance(message, WeightManifest) and message not in kept:
            kept.append(message)
    return kept


def _largest_gap(expected: tuple[float, ...], got: list[float]) -> float:
    """Largest absolute difference in nats; infinite when anything is not a number or the lengths differ."""
    if len(expected) != len(got):
        return math.inf
    gaps = [abs(e - g) for e, g in zip(expected, got, strict=True)]
    return math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps, default=0.0)
