"""What one broadcast took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.run.json_lines import last_row
from services.wire.membership import Confirmation
from services.wire.weights import Gap


def last_generation(syncs: Path) -> int:
    """The generation of the last broadcast in the run's syncs.jsonl; 0: there is none."""
    row = last_row(syncs)
    return int(row["pg_generation"]) if row and isinstance(row.get("pg_generation"), int) else 0


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

    @classmethod
    def of(
        cls,
        confirmed: Sequence[Confirmation],
        policy_version: int,
        pg_generation: int,
        *,
        seconds: float,
        gap: Gap,
        kernel_gap: Gap | None,
    ) -> "SyncReport":
        """From what the members confirmed. seconds: from the announcement to the last of them. gap: how far their probes are from
        the learner's. kernel_gap: see Proof."""
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
        )
