"""WeightChannel: what the learner's publisher needs to move bytes. Announcing and confirming go through membership."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from services.clock import Deadline
from services.wire.weights import Rendezvous, WeightManifest


class WeightChannel(Protocol):
    """Carries one policy version at a time from learner rank 0 to every member of the current generation."""

    def form(self, rendezvous: Rendezvous, deadline: Deadline) -> None:
        """Leave the generation before and meet the members of this one, who have been told the same rendezvous.

        Blocks until all are there. Raises WeightSyncError when they are not by then: announce the next generation.
        """

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[Tensor], deadline: Deadline) -> None:
        """Broadcast the buckets of the manifest, in order, to members that have been told the manifest.

        Returns when the bytes have left; that they arrived and are in use, each replica says for itself.
        Raises WeightSyncError when a member is gone: the generation is spent, announce the next.
        """

    def close(self) -> None:
        """Leave the generation; safe to call twice."""
