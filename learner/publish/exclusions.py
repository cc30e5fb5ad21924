"""Which replicas are left out of the weight group, and until when. Facts and the time come in, a verdict goes out.

Each failure in a row doubles the time that a replica is left out, and a broadcast that it confirms ends the row. Replicas that
are blamed together come back one after the other: the one that caused the failure then fails alone, and the others are cleared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from services.wire.membership import Lease

LONGEST_S = 600.0
"""The longest that a replica is left out, however often it failed."""
FORGOTTEN_S = 3600.0
"""A replica that was not blamed again, nor cleared, for so long after it could come back is gone; another may have its name."""
MENDED = 4
"""Failures in a row after which a replica that has caught up by itself counts as mended."""


@dataclass(frozen=True, slots=True)
class _Exclusion:
    incarnation: str
    failures: int
    until_s: float
    together: bool
    """Whether others were blamed with it, so that they have to come back one after the other."""


class Exclusions:
    """Remembers failures by replica. A replica that was started again is tried at once, but its failures still count."""

    def __init__(self, first_s: float) -> None:
        """first_s: how long a replica is left out after the first failure in a row."""
        self._first_s = first_s
        self._by_replica: dict[str, _Exclusion] = {}

    def blame(self, incarnations: Mapping[str, str], now_s: float) -> dict[str, float]:
        """Leave these replicas out for a while. incarnations: replica_id -> incarnation. Returns replica_id -> seconds."""
        seconds, wait_s = {}, 0.0
        self._by_replica = {each: out for each, out in self._by_replica.items() if now_s - out.until_s < FORGOTTEN_S}
        for replica_id in sorted(incarnations, key=lambda each: (self._failures(each), each)):
            failures = self._failures(replica_id) + 1
            wait_s += min(LONGEST_S, self._first_s * 2.0 ** (failures - 1))
            self._by_replica[replica_id] = _Exclusion(
                incarnations[replica_id], failures, now_s + wait_s, len(incarnations) > 1
            )
            seconds[replica_id] = wait_s
        return seconds

    def shorten(self, replica_id: str, incarnation: str, now_s: float) -> None:
        """This replica has proved the weights that it fetched by itself: it is left out for first_s more at most. Not after more
        than MENDED failures in a row: what reaches it by itself and fails in the group again and again costs the others time; nor
        where others were blamed with it."""
        out = self._by_replica.get(replica_id)
        if out is None or out.incarnation != incarnation or out.together:
            return
        if out.failures <= MENDED:
            self._by_replica[replica_id] = replace(out, until_s=min(out.until_s, now_s + self._first_s))

    def clear(self, replica_ids: Iterable[str]) -> None:
        """Forget the failures of these replicas: they confirmed a broadcast."""
        for replica_id in replica_ids:
            self._by_replica.pop(replica_id, None)

    def trusted(self, live: Mapping[str, Lease], now_s: float) -> dict[str, Lease]:
        """The live replicas that are not left out now."""
        return {replica_id: lease for replica_id, lease in live.items() if not self._is_out(lease, now_s)}

    def _is_out(self, lease: Lease, now_s: float) -> bool:
        out = self._by_replica.get(lease.replica_id)
        return out is not None and out.incarnation == lease.incarnation and now_s < out.until_s

    def _failures(self, replica_id: str) -> int:
        out = self._by_replica.get(replica_id)
        return out.failures if out else 0
