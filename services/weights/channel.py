"""WeightChannel: how the learner's publisher moves bytes. Announcements and confirmations go through membership.py."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from services.clock import Deadline
from services.wire.weights import Rendezvous, WeightManifest


class WeightChannel(Protocol):
    """Carries one policy version at a time from learner rank 0 to every member of the current generation."""

    def form(self, rendezvous: Rendezvous, deadline: Deadline, arrived: Callable[[int], None]) -> None:
        """Leave the previous generation and meet the members of this one, who have been told the same rendezvous.

        arrived: called with the rank of each member that has come to the meeting. Raises WeightSyncError when they are not all
        there in time, or `close` was called meanwhile; the caller then announces the next generation.

        Waits for: the replicas of this generation.
        Until: the deadline (deadlines.weight_join_s).
        Ended by: the last member joining; the deadline or a lost member (WeightSyncError); `close`.
        Metric: ratchet_waiting of the publisher that calls it.
        """

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[Tensor], deadline: Deadline) -> None:
        """Broadcast the buckets of the manifest, in order, to members that have been told the manifest.

        Returns when the bytes have left; each replica confirms for itself that they arrived and are in use.
        Raises WeightSyncError when a member is gone; the caller then announces the next generation.

        Waits for: the replicas of this generation, to receive every bucket.
        Until: the deadline (deadlines.weight_transfer_s).
        Ended by: the last bucket; the deadline or a lost member (WeightSyncError); `close`.
        Metric: ratchet_waiting of the publisher that calls it.
        """

    def close(self) -> None:
        """Leave the generation. Safe to call twice, and while `form` or `send` is at work in another thread, which it ends."""
