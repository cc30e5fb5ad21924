"""What one broadcast took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from learner.publish.proof import Proof
from services.run.json_lines import last_row
from services.wire.membership import Confirmation
from services.wire.weights import Gap


@dataclass(frozen=True)
class LastSync:
    """What the next start of the learner has to know of the last broadcast."""

    pg_generation: int = 0
    """0: there was none."""
    rounding: Gap | None = None
    """See Proof; None where it is not known."""


def last_sync(syncs: Path) -> LastSync:
    """The last broadcast in the run's syncs.jsonl."""
    row = last_row(syncs) or {}
    generation, rounding = row.get("pg_generation"), row.get("rounding_nats")
    return LastSync(
        generation if isinstance(generation, int) else 0,
        Gap(*map(float, rounding))
        if isinstance(rounding, list) and len(rounding) == len(Gap.__struct_fields__)
        else None,
    )


@dataclass(frozen=True)
class SyncReport:
    """One broadcast that every member confirmed, but for those that were left behind."""

    policy_version: int
    pg_generation: int
    replicas: int
    seconds: float
    sampling_gap_s: list[float]
    transfer_s: list[float]
    running_sequences: int
    gap_nats: float
    gap_mean_nats: float
    kernel_gap_nats: float | None
    """What engine and learner differ by for the weights on disk: the largest that any replica has measured so far."""
    rounding_nats: tuple[float, float, float] | None
    """See Proof: mean, at nine in ten tokens, largest."""

    @classmethod
    def of(
        cls,
        confirmed: Sequence[Confirmation],
        policy_version: int,
        pg_generation: int,
        *,
        seconds: float,
        gap: Gap,
        proof: Proof,
    ) -> "SyncReport":
        """From what the members confirmed. seconds: from the announcement to the last of them. gap: how far their probes are from
        the learner's. proof: what found that they are near enough."""
        kernel_gap, rounding = proof.kernel_gap, proof.rounding
        return cls(
            policy_version=policy_version,
            pg_generation=pg_generation,
            replicas=len(confirmed),
            seconds=seconds,
            sampling_gap_s=[confirmation.pause_s for confirmation in confirmed],
            transfer_s=[confirmation.transfer_s for confirmation in confirmed],
            running_sequences=sum(confirmation.running_sequences for confirmation in confirmed),
            gap_nats=gap.largest_nats,
            gap_mean_nats=gap.mean_nats,
            kernel_gap_nats=None if kernel_gap is None else kernel_gap.largest_nats,
            rounding_nats=None if rounding is None else msgspec.structs.astuple(rounding),
        )
