"""The memory that versions are copied into, used again by one version after the other.

A set of buckets holds one version. It is filled again once that version has arrived everywhere and nobody reads it; until then
the next version goes into a second set, and what stands in line behind a transfer gives its place to the version after it. So
there are two sets, one where transfers end before the next step does, and a third while a replica fetches an older version by
itself.
A transfer that was given up may go on reading in a thread that nothing ends, so its set is never filled again: it is left to
that thread, and memory for a new one is taken.

    free ──take──▶ filling, filled ──hold──▶ read ──release, arrived──▶ free
                                     ▲         └──release, not arrived──┐
                                     └──────────────────────────────────┘        given up: never free again
"""

import logging
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from services.errors import InputError
from services.weights.buckets import allocate, lay_out, unpack
from services.wire.weights import Bucket

log = logging.getLogger("ratchet.learner")


class KeptBuckets:
    """One set. Filled by the training loop's thread, read by the publisher's."""

    def __init__(self, layout: Sequence[Bucket], flat: Sequence[Tensor]) -> None:
        """layout: without digests. flat: memory for each bucket."""
        self.layout = tuple(layout)
        self.flat = tuple(flat)
        self.named: dict[str, Tensor] = {
            name: place for pair in zip(layout, flat, strict=True) for name, place in unpack(*pair)
        }
        """Views into the buckets, by name."""
        self._lock = threading.Lock()
        self._filling = 0
        self._readers = 0
        self._wanted = False
        self._given_up = False

    def take(self, *, superseding: bool = False) -> int | None:
        """Begin to fill it: from here on nobody may read what it held. Returns the number of this filling; None where the version
        that it holds is still read or, unless it is superseded, has not arrived."""
        with self._lock:
            if self._readers or self._given_up or (self._wanted and not superseding):
                return None
            self._filling += 1
            self._wanted = True
            return self._filling

    def hold(self, filling: int) -> bool:
        """Keep it from being filled until `release`; False where it has been filled again since."""
        with self._lock:
            if filling != self._filling:
                return False
            self._readers += 1
            return True

    def release(self, *, arrived: bool) -> None:
        """End a `hold`. arrived: whether its version is at every replica, and may be overwritten."""
        with self._lock:
            self._readers -= 1
            if arrived:
                self._wanted = False

    def give_up(self) -> None:
        """Never fill it again: something may read it that nothing ends."""
        with self._lock:
            self._given_up = True

    @property
    def is_given_up(self) -> bool:
        with self._lock:
            return self._given_up


class BucketPool:
    """The sets of one learner. Used by the training loop's thread."""

    def __init__(
        self, shapes: Sequence[tuple[str, Tensor]], bucket_mib: int, device: torch.device, *, pinned: bool = False
    ) -> None:
        """shapes: what a version consists of; it is the same in every version. device: where the buckets lie. pinned: see
        `allocate`."""
        self._layout = lay_out(shapes, bucket_mib)
        self._device = device
        self._pinned = pinned
        self._sets: list[KeptBuckets] = []

    def take(self) -> tuple[KeptBuckets, int]:
        """A set to fill, and the number of the filling. Raises InputError where there is no memory for one."""
        self._sets = [each for each in self._sets if not each.is_given_up]
        for superseding in (False, len(self._sets) > 1):
            for each in self._sets:  # the one filled last is at the end
                if (filling := each.take(superseding=superseding)) is not None:
                    self._sets.remove(each)
                    self._sets.append(each)
                    return each, filling
        made = KeptBuckets(self._layout, self._allocated())
        self._sets.append(made)
        filling = made.take()
        assert filling is not None, "nobody else knows it"
        return made, filling

    def __len__(self) -> int:
        """The number of sets."""
        return len(self._sets)

    def _allocated(self) -> list[Tensor]:
        gib = sum(bucket.size_bytes for bucket in self._layout) / 2**30
        kind = "pinned host memory" if self._pinned else self._device.type
        log.info("weights: %.2f GiB of buckets on %s, set %d", gib, kind, len(self._sets) + 1)
        try:
            return allocate(self._layout, self._device, pinned=self._pinned)
        except torch.OutOfMemoryError as fault:
            raise InputError(
                f"the GPU of learner rank 0 has no memory for a copy of the weights ({gib:.2f} GiB) while they are sent: "
                f'{str(fault).splitlines()[0]} Set weights.type = "gloo", which sends them from host memory, or lower '
                "learner.row_tokens or learner.rows_per_micro_batch"
            ) from fault
