"""What the learner has written on the server for replicas to read, and keeps there: the announcement of now, and the offer."""

import logging
import secrets

from services.clock import now_s
from services.weights.membership import Membership
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer, WeightSource

log = logging.getLogger("ratchet.learner")

LOOK_EVERY_S = 1.0
"""How often it is looked whether the server still has what was announced."""


class Notices:
    """Used by the publisher's thread."""

    def __init__(self, membership: Membership, source: WeightSource) -> None:
        self.learner = secrets.token_hex(4)
        """The name of this start of the learner."""
        self._membership = membership
        self._source = source
        self._has_offered = False
        self._message: Rendezvous | WeightManifest | None = None
        self._announced = b""
        self._looked_s = 0.0

    def announce(self, message: Rendezvous | WeightManifest) -> None:
        """Tell every replica."""
        self._announced = self._membership.announce(message)
        self._message = message
        self._looked_s = now_s()

    def repeat_what_was_lost(self) -> None:
        """Announce the last message again where the server has lost it: replicas that had not read it would wait in vain."""
        if self._message is None or now_s() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s()
        if not self._membership.is_announced(self._announced):
            self.announce(self._message)

    def offer(self, policy_version: int, pg_generation: int, alone: dict[str, str]) -> None:
        """Say where the newest version is. alone: replica_id -> incarnation of those that are to fetch it by themselves."""
        offer = WeightOffer(
            learner=self.learner,
            source=self._source,
            policy_version=policy_version,
            pg_generation=pg_generation,
            alone=alone,
        )
        was_there = self._membership.offer(offer)
        if self._has_offered and not was_there:
            log.warning(
                "Redis has lost its data: leases, announcements and the counter of generations are written again; "
                "generation %d is the last",
                pg_generation,
            )
        self._has_offered = True
