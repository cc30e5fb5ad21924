"""What a replica says of itself, and what it answers when weights are announced."""

from typing import Literal

import msgspec

from services.wire.codec import record


@record("lease", 1)
class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica says of itself each time it renews."""

    replica_id: str
    incarnation: str
    """Differs each time the replica starts."""
    beat: int
    """Counts the renewals: a sign of life."""
    ranks: int
    """Engine workers: ranks it takes in the process group."""
    policy_version: int
    ready: bool
    """Holds proven weights of the current generation and takes prompts."""
    metrics_url: str
    sampled_tokens: int
    sampling_s: float
    """Seconds with at least one sequence in flight, since it was first ready."""
    ready_s: float
    """Seconds since it was first ready."""


@record("confirmation", 1)
class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's answer to an announcement."""

    replica_id: str
    incarnation: str
    phase: Literal["joined", "swapped"]
    pg_generation: int
    policy_version: int
    transfer_s: float = 0.0
    pause_s: float = 0.0
    running_sequences: int = 0
    gap_nats: float | None = None
    """Largest absolute difference of the probe's log-probs."""
    fault: str | None = None
    """Why it did not join or swap; then it holds what it held before."""
