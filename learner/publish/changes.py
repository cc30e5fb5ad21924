"""What a version changed since the last one that was proved, put together by the publisher's thread: weights.delta.

The learner keeps the version that the group has proved last. A version after it goes out, bucket by bucket, as what changed since
then, where that is small enough (services/weights/delta.py). It goes out whole, for all, where the learner has no such version or
knows of a member of a broadcast that has not proved it: one collective moves the same bytes to everybody, and a member more costs
no time. Over HTTP each replica fetches what it needs, so it is enough that one of them has proved it. A replica that turns out
not to hold it fetches the buckets concerned whole, while the others go on.
"""

from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from learner.metrics import DELTA_FALLBACKS, WEIGHT_BYTES
from learner.publish.roll_call import Stopped
from learner.publish.snapshot import Changes, Snapshot
from services.config.weights import WeightsConfig
from services.weights.delta import encode, unit_bytes
from services.weights.side_stream import SideStream
from services.wire.weights import Delta


class Base:
    """The version that changes are counted from. Used by the publisher's thread alone."""

    def __init__(self, weights: WeightsConfig, stopping: Callable[[], bool]) -> None:
        """stopping: whether to give up putting changes together."""
        self._weights = weights
        self._stopping = stopping
        self._snapshot: Snapshot | None = None

    def changes(self, wanted: Snapshot, members: Collection[str], holding: Callable[[int], set[str]]) -> Changes:
        """What to send for this version, which is held. members: who is to get it. holding: which replicas have proved a version.
        Raises Stopped."""
        if not self._weights.delta:
            return Changes.nothing(wanted)
        base = self._snapshot
        if base is None:
            return self._whole(wanted, "no_base")
        lacking = set(members) - holding(base.policy_version)
        if lacking and (self._weights.type != "http" or lacking == set(members)):
            return self._whole(wanted, "member_without_base")
        found = self._between(base, wanted)
        DELTA_FALLBACKS.labels("too_much_changed").inc(found.deltas.count(None))
        wanted.changes = found
        return found

    def is_proved(self, snapshot: Snapshot) -> None:
        """Count from this version from now on; it is held."""
        if not self._weights.delta or not snapshot.hold():
            return
        self._forget()
        self._snapshot = snapshot

    def failed(self) -> None:
        """Count from no version where a broadcast has failed: a bucket that came by half has destroyed what was there. Over HTTP
        each replica sees for itself what it holds."""
        if self._weights.type != "http":
            self._forget()

    def _forget(self) -> None:
        if self._snapshot is not None:
            self._snapshot.release(arrived=True)
        self._snapshot = None

    def _whole(self, wanted: Snapshot, reason: str) -> Changes:
        DELTA_FALLBACKS.labels(reason).inc(len(wanted.flat))
        return Changes.nothing(wanted)

    def _between(self, base: Snapshot, wanted: Snapshot) -> Changes:
        side = SideStream(wanted.flat[0].device)
        deltas: list[Delta | None] = []
        encoded: list[Tensor | None] = []
        for before, bucket, old, new in zip(base.sealed(), wanted.sealed(), base.flat, wanted.flat, strict=True):
            if self._stopping():
                raise Stopped("the learner stops; what has changed in its weights is not put together")
            with side.current():
                change = encode(old, new, unit_bytes(bucket))
                side.finish()
            encoded.append(change)
            deltas.append(None if change is None else Delta(before.digest, change.numel(), side.digest(change)))
        return Changes(tuple(deltas), tuple(encoded))


def sent(flat: Sequence[Tensor], changes: Changes) -> list[Tensor]:
    """What a broadcast moves for each bucket. flat: the buckets."""
    return [whole if change is None else change for whole, change in zip(flat, changes.encoded, strict=True)]


def count_sent(flat: Sequence[Tensor], changes: Changes) -> None:
    """Count the bytes of a broadcast that has ended."""
    for whole, change in zip(flat, changes.encoded, strict=True):
        WEIGHT_BYTES.labels("whole" if change is None else "delta").inc((whole if change is None else change).numel())
