"""What a replica says of itself, and what it answers when weights are announced."""

from typing import Literal

import msgspec

from services.wire.codec import record
from services.wire.weights import Gap


@record("lease", 3)
class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica says of itself each time it renews its lease."""

    replica_id: str
    incarnation: str
    """A name that differs each time the replica starts."""
    ranks: int
    """The number of its engine workers, each a rank of the process group."""
    policy_version: int
    """Policy version of the weights that it samples with."""
    pg_generation: int | None = None
    """The last generation that it joined, while it is a member; None outside."""
    ready: bool
    """Whether it holds proven weights of the current generation and takes prompts."""
    sampling_s: float
    """Seconds with at least one sequence in flight, since it was first ready."""
    ready_s: float
    """Seconds since it was first ready."""


@record("confirmation", 3)
class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's answer to an announcement."""

    replica_id: str
    incarnation: str
    phase: Literal["joined", "swapped"]
    """The announcement that it answers: a rendezvous (joined) or a manifest (swapped)."""
    pg_generation: int
    policy_version: int
    transfer_s: float = 0.0
    """Seconds that receiving and checking the weights took, while sampling went on."""
    pause_s: float = 0.0
    """Seconds that sampling stood still for the swap."""
    running_sequences: int = 0
    """Sequences in the engine at the swap."""
    gap: Gap | None = None
    """Difference between the log-probs of the last probe and the learner's; None before a swap."""
    kernel_gap: Gap | None = None
    """The same difference for the weights on disk and all probes, measured before this replica's first swap; None at later ones.
    Engine and learner have read the same files then, so that what differs is what they compute."""
    moved_nats: float | None = None
    """Largest difference that its first swap made to its own log-probs of the probe, where the version sent is that on disk:
    0, unless weights did not find their places. None elsewhere."""
    fault: str | None = None
    """Why it did not join or swap, in which case its weights are unchanged; None when it did."""
