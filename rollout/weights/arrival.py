"""How the buckets of a version come into memory: by the group's broadcast or by HTTP, whole or as what changed in them.

What changed is put on the version of before, which lies where that was received. A bucket whose memory holds another version than
the delta is for, by its digest, is fetched whole from the learner's weight server; in a group after the last broadcast, so that
the other members do not wait. A bucket that is held already is neither fetched nor changed.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rollout.weights.fetch import Link, Wanted, fetch_bucket, fetch_delta
from services.clock import Deadline
from services.errors import WeightSyncError
from services.weights import delta
from services.weights.buckets import Damaged, check_digest
from services.weights.process_group import BroadcastGroup
from services.weights.side_stream import SideStream
from services.wire.weights import Bucket, Delta, WeightManifest, WeightSource

log = logging.getLogger("ratchet.rollout")


@dataclass
class Held:
    """Memory for the buckets of a version, uint8, one tensor each, and what lies in it."""

    flats: list[Tensor] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    """The digest of what each bucket holds; "" where that is not known."""

    def fits(self, buckets: Sequence[Bucket], device: torch.device) -> bool:
        """Whether these buckets can be received into it."""
        return [flat.numel() for flat in self.flats] == [bucket.size_bytes for bucket in buckets] and all(
            flat.device.type == device.type for flat in self.flats
        )


class Arrival:
    """One version on its way. Used by the receiver's thread."""

    def __init__(
        self,
        manifest: WeightManifest,
        held: Held,
        side: SideStream,
        *,
        group: BroadcastGroup | None,
        source: WeightSource | None,
        wanted: Wanted,
    ) -> None:
        """group: which broadcasts it; None where it is fetched from the source. wanted: whether it still is."""
        self._manifest = manifest
        self._held = held
        self._side = side
        self._group = group
        self._link = None if source is None else Link(source)
        self._wanted = wanted
        self._deltas = manifest.deltas or (None,) * len(manifest.buckets)
        self._baseless: list[int] = []
        self._came: dict[int, Tensor] = {}
        """What changed in a bucket, until it is put in place."""
        self.may_be_written = False
        """Whether a broadcast that failed may go on writing into the memory."""

    def take_in(self, deadline: Deadline) -> None:
        """Fill the memory and prove every bucket by its digest. Raises WeightSyncError; Damaged only after all buckets have come,
        because the other members of a group pass them on."""
        try:
            self._take_in(deadline)
        finally:
            if self._link is not None:
                self._link.drop()

    def _take_in(self, deadline: Deadline) -> None:
        damage: Damaged | None = None
        numbers = range(len(self._manifest.buckets))
        for number in numbers if self._group is None else self._group.receive(len(numbers), self._place, deadline):
            try:
                if self._group is None:
                    self._fetch(number, deadline)
                else:
                    self._settle(number)
            except Damaged as fault:
                damage = damage or fault
        self.may_be_written = False  # all have come
        if damage is not None:
            raise damage
        if self._baseless:
            log.warning(
                "policy version %d: this replica does not hold what %d of %d buckets changed from, and fetches them whole",
                self._manifest.policy_version,
                len(self._baseless),
                len(self._manifest.buckets),
            )
        for number in self._baseless:
            self._fetch_whole(number, deadline)

    def _place(self, number: int) -> Tensor:
        """Where a bucket, or what changed in it, is received. The group's thread asks, once the one before has come."""
        change = self._deltas[number]
        self.may_be_written = change is None
        if change is None:
            self._held.digests[number] = ""
            return self._held.flats[number]
        self._came[number] = self._memory(change.size_bytes, self._held.flats[number].device)
        return self._came[number]

    def _settle(self, number: int) -> None:
        """Prove a bucket that has come, or put in place what changed in it. Meanwhile the next one comes."""
        change = self._deltas[number]
        if change is None:
            self._prove(number)
            return
        came, held = self._came.pop(number), self._held.digests[number]
        if held == change.base:
            self._put(number, change, came)
        elif held != self._manifest.buckets[number].digest:
            self._baseless.append(number)

    def _fetch(self, number: int, deadline: Deadline) -> None:
        """Fetch a bucket, or what changed in it, unless it is held."""
        held, change = self._held.digests[number], self._deltas[number]
        if held == self._manifest.buckets[number].digest:
            return
        if change is not None and held == change.base:
            version, came = self._manifest.policy_version, self._memory(change.size_bytes, torch.device("cpu"))
            if fetch_delta(self._server(), version, number, change.base, came, deadline, self._wanted):
                self._put(number, change, came)
                return
        self._fetch_whole(number, deadline)

    def _fetch_whole(self, number: int, deadline: Deadline) -> None:
        flat = self._held.flats[number]
        self._held.digests[number] = ""
        into = torch.empty(flat.numel(), dtype=torch.uint8, pin_memory=True) if flat.is_cuda else flat
        fetch_bucket(self._server(), self._manifest.policy_version, number, into, deadline, self._wanted)
        if into is not flat:
            with self._side.current():
                flat.copy_(into, non_blocking=True)
            self._side.finish()
        self._prove(number)

    def _put(self, number: int, change: Delta, came: Tensor) -> None:
        """Make the new version of a bucket of the one that is held. Raises Damaged where what came is not what was sent."""
        if (found := self._side.digest(came)) != change.digest:
            raise Damaged(
                f"what changed in bucket {number + 1} of {len(self._deltas)} ({change.size_bytes} bytes) arrived with digest "
                f"{found}, announced was {change.digest}. The weights held before stay in use; the learner sends again"
            )
        flat = self._held.flats[number]
        self._held.digests[number] = ""
        with self._side.current():
            delta.apply(came, flat)
        self._side.finish()
        try:
            self._prove(number)
        except Damaged:  # the memory of the base was not what it had been
            self._baseless.append(number)

    def _prove(self, number: int) -> None:
        bucket = self._manifest.buckets[number]
        place = f"{number + 1} of {len(self._manifest.buckets)}"
        check_digest(bucket, self._side.digest(self._held.flats[number]), place)
        self._held.digests[number] = bucket.digest

    def _memory(self, size_bytes: int, device: torch.device) -> Tensor:
        with self._side.current():
            came = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        self._side.finish()  # nothing that was given to the stream before is at work on it
        return came

    def _server(self) -> Link:
        if self._link is None:
            raise WeightSyncError(
                f"version {self._manifest.policy_version} came as what changed, and nothing says where it can be fetched whole; "
                "run the same version of ratchet in every service"
            )
        return self._link
