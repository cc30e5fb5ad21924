"""The process group of the learner and its replicas, seen from the learner: form it, send a version, have it proved.

A member at which that fails is left out for a while, longer each time (exclusions.py); the others meet again in the next
generation. Going without any replica for too long, or a replica that holds other weights than were sent, ends the run.
"""

import logging
from dataclasses import dataclass

from learner.control.mismatch import CAUSES, SAME_NATS, gap_bound
from learner.metrics import (
    GAP_LIMIT_NATS,
    GAP_NATS,
    GENERATION,
    LIVE_REPLICAS,
    REPLICA_RANKS,
    REPLICAS,
    SYNC_SECONDS,
    SYNCS,
)
from learner.publish.exclusions import Exclusions
from learner.publish.patience import Patience
from learner.publish.roll_call import RollCall
from learner.publish.snapshot import Snapshot
from services.clock import Deadline, now_s
from services.config import RunConfig
from services.errors import DeadlineExceeded, InputError, WeightSyncError
from services.metrics import waiting
from services.weights.channel import WeightChannel
from services.weights.gap import APART, in_words, is_within, widest
from services.weights.membership import Membership
from services.wire.membership import Confirmation, Lease
from services.wire.weights import Gap, Rendezvous, WeightManifest

log = logging.getLogger("ratchet.learner")


@dataclass(frozen=True)
class SyncReport:
    """One broadcast that every member confirmed."""

    policy_version: int
    pg_generation: int
    replicas: int
    seconds: float
    sampling_gap_s: list[float]
    transfer_s: list[float]
    running_sequences: int
    gap_nats: float
    gap_mean_nats: float
    kernel_gap_nats: float | None
    """What engine and learner differ by for the weights on disk: the largest that any replica has measured so far."""


class ReplicaGroup:
    """Used by the publisher's thread alone."""

    def __init__(
        self, config: RunConfig, membership: Membership, channel: WeightChannel, address: tuple[str, int]
    ) -> None:
        """address: host and port of the rendezvous store."""
        self._config = config
        self._membership = membership
        self._channel = channel
        self._address = address
        self._roll_call = RollCall(membership.confirmations())
        self._exclusions = Exclusions(config.deadlines.lease_s)
        self._patience = Patience(config.deadlines.first_replica_s, now_s())
        self._generation = 0
        self._members: dict[str, str] = {}  # replica_id -> incarnation
        self.confirmed_version: int | None = None
        """The version that every member has confirmed; None before the first and after a failed broadcast."""
        self.kernel_gap: Gap | None = None
        """Largest difference of the probes that a replica has measured with the weights on disk; None before the first."""
        self.any_live = True
        """Whether any replica was live and not left out at the last call of `look`; True before the first."""

    def look(self, wanted_version: int) -> dict[str, Lease]:
        """The live replicas, if there is something to bring them: they changed, or not all of them have confirmed this version.
        {} if there is nothing to do, or nobody to do it for. Raises what ends the run."""
        everyone = self._membership.live()
        live = self._exclusions.trusted(everyone, now_s())
        REPLICA_RANKS.set(sum(lease.ranks for lease in everyone.values()))
        LIVE_REPLICAS.labels("left_out").set(len(everyone) - len(live))
        try:
            return self._in_need(live, wanted_version)
        finally:
            self._show(live, wanted_version)

    def _in_need(self, live: dict[str, Lease], wanted_version: int) -> dict[str, Lease]:
        """See `look`. live: the replicas that are live and not left out."""
        self.any_live = bool(live)
        if not live:
            self._members = {}
            if not self._patience.has_begun:
                log.warning("no replica is left; waiting up to %.0f s for one", self._patience.longest_s)
            self._patience.without_replica(now_s())
            return {}
        self._patience.replica_is_live()
        return {} if self._is_met(live) and self.confirmed_version == wanted_version else live

    def bring(self, wanted: Snapshot, live: dict[str, Lease]) -> SyncReport | None:
        """Bring this version to these replicas, in a new generation if they changed. Returns None if it failed: then look and
        call again. Raises what ends the run."""
        try:
            if not self._is_met(live):
                self._form(live)
            return self._send(wanted)
        except (WeightSyncError, DeadlineExceeded) as fault:  # not Unequal, which ends the run
            self._count_failure(fault)
            return None
        finally:
            self._show(live, wanted.policy_version)

    def _show(self, live: dict[str, Lease], wanted_version: int) -> None:
        """Set the gauges of members, and of replicas that hold the wanted version and that do not."""
        in_step = self._members if self.confirmed_version == wanted_version else {}
        REPLICAS.set(len(self._members))
        LIVE_REPLICAS.labels("in_step").set(len(in_step))
        LIVE_REPLICAS.labels("behind").set(len(live) - len(in_step))

    def _is_met(self, live: dict[str, Lease]) -> bool:
        """Whether the group's members are these replicas."""
        return self._members == {replica_id: lease.incarnation for replica_id, lease in live.items()}

    def _form(self, live: dict[str, Lease]) -> None:
        """Form the next generation of the group from these replicas. Raises WeightSyncError or DeadlineExceeded.

        Waits for: every live replica to join the new generation.
        Until: deadlines.weight_join_s to meet, and as long again to confirm it.
        Ended by: the last confirmation, the first refusal, or the deadline; replicas that failed are then left out for a while.
        Metric: ratchet_waiting{room="learner", awaiting="replicas to join"}.
        """
        self._members = {}
        self._generation = self._membership.next_generation()
        rendezvous = self._rendezvous(live)
        members = {replica_id: lease.incarnation for replica_id, lease in live.items()}
        join_s = self._config.deadlines.weight_join_s
        with waiting("learner", "replicas to join"):
            self._roll_call.ask("joined", self._generation, members)
            self._membership.announce(rendezvous)
            forming = Deadline.after(join_s, f"generation {self._generation} of the weight group to form")
            self._channel.form(rendezvous, forming)
            self._roll_call.collect(Deadline.after(join_s, "replicas to join the weight group"))
        self._members = members
        GENERATION.set(self._generation)
        log.info("generation %d of the weight group: %s", self._generation, ", ".join(sorted(live)))

    def _send(self, wanted: Snapshot) -> SyncReport:
        """Send one version to every member and have each prove it. Raises WeightSyncError or DeadlineExceeded.

        Waits for: every member to receive the weights, swap them in and confirm the probe.
        Until: deadlines.weight_transfer_s.
        Ended by: the last confirmation, the first refusal, a lost member, or the deadline; replicas that failed are then left
        out for a while.
        Metric: ratchet_waiting{room="learner", awaiting="replicas to confirm"}.
        """
        start = now_s()
        manifest = self._manifest(wanted)
        with waiting("learner", "replicas to confirm"):
            deadline = Deadline.after(self._config.deadlines.weight_transfer_s, "replicas to confirm the weights")
            self._roll_call.ask("swapped", self._generation, self._members, wanted.policy_version)
            self._membership.announce(manifest)
            with wanted.sending():
                self._channel.send(manifest, wanted.flat, deadline)
            confirmed = self._roll_call.collect(deadline)
        seconds = now_s() - start
        gap = self._check_gaps(confirmed, wanted.policy_version)
        self._exclusions.clear(self._members)
        self._patience.confirmed()
        self.confirmed_version = wanted.policy_version
        return self._report(confirmed, wanted.policy_version, seconds, gap)

    def _rendezvous(self, live: dict[str, Lease]) -> Rendezvous:
        """Where and with which ranks these replicas meet in the generation that is forming."""
        first_ranks: dict[str, int] = {}
        size = 1  # rank 0 is the learner
        for replica_id, lease in sorted(live.items()):
            first_ranks[replica_id] = size
            size += lease.ranks
        return Rendezvous(
            pg_generation=self._generation,
            backend=self._config.weights.type,
            host=self._address[0],
            port=self._address[1],
            size=size,
            first_ranks=first_ranks,
            timeout_s=self._config.deadlines.weight_join_s,
        )

    def _manifest(self, wanted: Snapshot) -> WeightManifest:
        return WeightManifest(
            policy_version=wanted.policy_version,
            pg_generation=self._generation,
            buckets=wanted.sealed(),
            probes=wanted.probes,
            bound=self._bound,
        )

    def _report(self, confirmed: list[Confirmation], policy_version: int, seconds: float, gap: Gap) -> SyncReport:
        """Count a confirmed broadcast, and say what it took. gap: how far the replicas' probes are from the learner's."""
        SYNC_SECONDS.observe(seconds)
        SYNCS.labels("confirmed").inc()
        return SyncReport(
            policy_version=policy_version,
            pg_generation=self._generation,
            replicas=len(confirmed),
            seconds=seconds,
            sampling_gap_s=[confirmation.pause_s for confirmation in confirmed],
            transfer_s=[confirmation.transfer_s for confirmation in confirmed],
            running_sequences=sum(confirmation.running_sequences for confirmation in confirmed),
            gap_nats=gap.largest_nats,
            gap_mean_nats=gap.mean_nats,
            kernel_gap_nats=None if self.kernel_gap is None else self.kernel_gap.largest_nats,
        )

    @property
    def _bound(self) -> Gap:
        return gap_bound(self._config.weights, self._config.model.dtype, self.kernel_gap)

    def _check_gaps(self, confirmed: list[Confirmation], policy_version: int) -> Gap:
        """Return how far the replicas' probes are from the learner's. Raises Unequal where that is above the bound."""
        for confirmation in confirmed:
            self._check_start(confirmation)
        gap, bound = widest(confirmation.gap or APART for confirmation in confirmed), self._bound
        GAP_NATS.set(gap.largest_nats)
        GAP_LIMIT_NATS.set(bound.largest_nats)
        for confirmation in confirmed:
            found = confirmation.gap or APART
            if not is_within(found, bound):
                rounding = (
                    ""
                    if self.kernel_gap is None
                    else f"; with the weights on disk the two differed by {in_words(self.kernel_gap)}, which is rounding"
                )
                raise Unequal(
                    f"replica {confirmation.replica_id} does not hold the learner's weights: after policy version "
                    f"{policy_version} its probes differ by {in_words(found)}, and may differ by {in_words(bound)}"
                    f"{rounding}. {CAUSES}. If the gap is rounding alone, raise weights.max_gap_nats"
                )
        return gap

    def _check_start(self, confirmation: Confirmation) -> None:
        """Look at what a replica measured around its first swap. Raises Unequal."""
        config, found = self._config, confirmation.kernel_gap
        dtype = config.model.dtype
        if found is None:
            return
        most = gap_bound(config.weights, dtype, None)
        if not is_within(found, most):
            raise Unequal(
                f"engine and learner compute different log-probs from the same folder, model.path = {config.model.path}: "
                f"before any weights were sent, the probes of replica {confirmation.replica_id} differ by {in_words(found)}, "
                f"and rounding in {dtype} explains {in_words(most)}. {CAUSES}"
            )
        self.kernel_gap = widest([found, self.kernel_gap or found])
        moved = confirmation.moved_nats
        if moved is not None and not moved <= max(SAME_NATS[dtype], config.weights.max_gap_nats or 0.0):
            raise Unequal(
                f"weights did not find their places in the engine of replica {confirmation.replica_id}: version 0 is what it had "
                f"read from disk, and yet its probe moved by {moved:.3g} nats when the same weights were sent. The engine "
                "knows some of this model's weights under other names, or cannot reload them: train a model that "
                "docs/models.md names, or report this one"
            )

    def _count_failure(self, fault: Exception) -> None:
        """Give the group up, and leave out for a while the replicas that caused the failure. Raises what ends the run."""
        SYNCS.labels("failed").inc()
        at_fault = self._roll_call.at_fault(give_up=self._channel.close)
        self._members = {}
        self.confirmed_version = None
        seconds = self._exclusions.blame(at_fault, now_s())
        left_out = ", ".join(f"{replica_id} for {wait_s:.0f} s" for replica_id, wait_s in seconds.items())
        log.warning("weights did not reach every replica: %s. Left out: %s", fault, left_out)
        self._patience.failed(fault, now_s())


class Unequal(InputError):
    """Engine and learner do not compute the same from the same weights; trying again would not change that."""
