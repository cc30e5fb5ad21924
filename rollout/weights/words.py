"""What a replica has told the learner: that it joined a generation, or holds a version, or why not.

The last word is kept, because the server may lose it before the learner has read it; then it is said again.
"""

import asyncio
from itertools import chain

from rollout.engine import SwapReport
from rollout.metrics import POLICY_VERSION, SAMPLING_GAP_SECONDS, SWAPS, TRANSFER_SECONDS, WEIGHT_GAP_NATS
from rollout.weights.probing import Probed
from services.weights.gap import gap_between
from services.weights.membership import Membership
from services.wire.membership import Confirmation
from services.wire.weights import WeightManifest


class Words:
    """One replica's words, for the follower's task alone."""

    def __init__(self, membership: Membership, replica_id: str, incarnation: str) -> None:
        self._membership = membership
        self._replica_id = replica_id
        self._incarnation = incarnation
        self._last: Confirmation | None = None

    def has_confirmed(self, manifest: WeightManifest) -> bool:
        """Whether the last word was that this replica holds this version."""
        last = self._last
        return last is not None and (last.phase, last.pg_generation, last.policy_version, last.fault) == (
            "swapped",
            manifest.pg_generation,
            manifest.policy_version,
            None,
        )

    async def say(self, phase: str, pg_generation: int, policy_version: int, **facts: object) -> None:
        """Tell the learner. phase: as in Confirmation. facts: its other fields."""
        self._last = Confirmation(
            replica_id=self._replica_id,
            incarnation=self._incarnation,
            phase=phase,  # type: ignore[arg-type]
            pg_generation=pg_generation,
            policy_version=policy_version,
            **facts,  # type: ignore[arg-type]
        )
        await self.repeat()

    async def repeat(self) -> None:
        """Say the last word again, if there is one."""
        if self._last is not None:
            await asyncio.to_thread(self._membership.confirm, self._last)

    async def say_swapped(
        self, manifest: WeightManifest, report: SwapReport, before: list[list[float]] | None, after: Probed
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
        await self.say(
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
