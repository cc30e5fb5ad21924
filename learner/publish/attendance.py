"""Who is live, and which version each replica has proved that it holds."""

import logging
from collections.abc import Callable, Iterable, Mapping

from services.clock import now_s
from services.weights.membership import Membership
from services.wire.membership import Lease

log = logging.getLogger("ratchet.learner")


class Attendance:
    """The leases as they were at the last look. Used by the publisher's thread."""

    def __init__(self, membership: Membership, lease_s: float, on_lost: Callable[[str], None]) -> None:
        """on_lost: called with the id of each replica whose lease ends, and of each that is given up before that."""
        self._membership = membership
        self._lease_s = lease_s
        self._on_lost = on_lost
        self._seen_s: dict[str, float] = {}
        self._holds: dict[str, tuple[str, int]] = {}  # replica_id -> (incarnation, policy version)
        self.live: dict[str, Lease] = {}

    def look(self) -> None:
        """Take in the leases, and say of each that has ended that its replica is lost.

        A replica of which the server knows nothing is live for as long again: a server that was emptied knows nothing of anybody
        until they register again.
        """
        live = self._membership.live()
        missing = {each: lease for each, lease in self.live.items() if each not in live}
        lost = self.lost({each: lease.incarnation for each, lease in missing.items()})
        self._seen_s |= dict.fromkeys(live, now_s())
        self.live = live | {each: lease for each, lease in missing.items() if each not in lost}
        for replica_id in sorted(lost):
            self._seen_s.pop(replica_id, None)
            self._holds.pop(replica_id, None)
            log.warning("the lease of %s has ended; what it has claimed goes to other replicas", replica_id)
            self._on_lost(replica_id)

    def give_back(self, replica_ids: Iterable[str]) -> None:
        """Nobody waits for these any longer, and they have missed a renewal: others get what they have claimed, before their
        leases end."""
        for replica_id in sorted(self.live.keys() & set(replica_ids)):
            log.warning("%s has not renewed its lease; what it has claimed goes to other replicas", replica_id)
            self._on_lost(replica_id)

    def lost(self, incarnations: Mapping[str, str], *, left_s: float = 0.0) -> set[str]:
        """Which of these are gone or were started again: replica_id -> incarnation. left_s: see Membership.lost."""
        if not incarnations:
            return set()
        unseen = {each for each in incarnations if now_s() - self._seen_s.get(each, 0.0) > 2 * self._lease_s}
        return self._membership.lost(incarnations, left_s=left_s) | unseen

    def quiet(self, incarnations: Mapping[str, str]) -> set[str]:
        """Which of these are gone, or have not renewed their lease for half of its length, in which they ought to have once."""
        return self.lost(incarnations, left_s=self._lease_s / 2)

    def prove(self, incarnations: Mapping[str, str], policy_version: int) -> None:
        """These hold this version now: replica_id -> incarnation."""
        self._holds |= {each: (incarnation, policy_version) for each, incarnation in incarnations.items()}

    def holding(self, policy_version: int) -> set[str]:
        """The live replicas that have proved this version."""
        return {
            each for each, lease in self.live.items() if self._holds.get(each) == (lease.incarnation, policy_version)
        }

    def generations(self) -> Iterable[int]:
        """The generations that the live replicas are in."""
        return [lease.pg_generation for lease in self.live.values() if lease.pg_generation is not None]
