"""The process group of the learner and its replicas, seen from the learner: form it, send a version, have it proved.

Nobody waits for the slowest. A member that is late or gone is left behind: the version of the others counts, and it catches up
by itself from the learner's weight server, as a replica does that joins while the group has the newest version. Both are in the
generation that forms for the next version, but for those that failed, which are left out of it for a while, longer each time
(exclusions.py). Going without any replica for too long, or a replica that holds other weights than were sent, ends the run.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future

from learner.metrics import (
    CATCH_UPS,
    GENERATION,
    LEFT_BEHIND,
    LIVE_REPLICAS,
    REPLICA_RANKS,
    REPLICAS,
    SYNC_SECONDS,
    SYNCS,
)
from learner.publish.attendance import Attendance
from learner.publish.changes import Base, count_sent, sent
from learner.publish.exclusions import Exclusions
from learner.publish.notices import Notices
from learner.publish.patience import Patience
from learner.publish.proof import Proof
from learner.publish.roll_call import RollCall
from learner.publish.snapshot import Changes, Snapshot
from learner.publish.sync_report import SyncReport
from services.clock import Deadline, now_s
from services.config import RunConfig
from services.errors import DeadlineExceeded, WeightSyncError
from services.metrics import waiting
from services.threads import LastingThread, in_daemon_thread
from services.weights.channel import WeightChannel
from services.weights.membership import Membership
from services.wire.membership import Lease
from services.wire.weights import Gap, Rendezvous, WeightManifest, WeightSource

log = logging.getLogger("ratchet.learner")


class ReplicaGroup:
    """Used by the publisher's thread alone."""

    def __init__(
        self,
        config: RunConfig,
        membership: Membership,
        channel: WeightChannel,
        address: tuple[str, int],
        *,
        source: WeightSource,
        stopping: Callable[[], bool],
        on_lost: Callable[[str], None],
        generation: int = 0,
        rounding: Gap | None = None,
    ) -> None:
        """address: host and port of the rendezvous store. source: the learner's weight server. stopping: whether to give up any
        wait. on_lost: see Attendance. generation: the highest that the run is known to have had. rounding: see Proof."""
        self._config = config
        self._membership = membership
        self._channel = channel
        self._address = address
        self._source = source
        self._notices = Notices(membership, source)
        self._attendance = Attendance(membership, config.deadlines.lease_s, on_lost)
        self._roll_call = RollCall(
            membership.confirmations(),
            self._attendance.lost,
            quiet=self._attendance.quiet,
            patience_s=config.deadlines.weight_patience_s,
            stopping=stopping,
        )
        self._exclusions = Exclusions(config.deadlines.lease_s)
        self._patience = Patience(config.deadlines.first_replica_s, now_s())
        self._proof = Proof(config, rounding)
        self._base = Base(config.weights, stopping)
        self._sender = LastingThread("weight-sender")
        self._generation = generation
        self._formed_s = 0.0
        self._is_formed = False
        self._named_nobody = False  # whether the last failure could be put on no member
        self._members: dict[
            str, str
        ] = {}  # replica_id -> incarnation; those that form, or are sent to, while that goes on
        self._wanted_version = -1
        self.confirmed_version: int | None = None
        """The version that the group has confirmed last, without those that were left behind; None before the first."""

    @property
    def generation(self) -> int:
        """The last generation; no later one of this run has a lower number."""
        return self._generation

    @property
    def kernel_gap(self) -> Gap | None:
        """See Proof."""
        return self._proof.kernel_gap

    @property
    def bound(self) -> Gap:
        """See Proof."""
        return self._proof.bound

    @property
    def outsiders_lag(self) -> bool:
        """Whether a replica outside the group samples under another version than the wanted one, as far as its lease says."""
        holding = self._attendance.holding(self._wanted_version)
        outside = [lease for lease in self._attendance.live.values() if not self._is_member(lease)]
        return any(lease.ready and lease.replica_id not in holding for lease in outside)

    def look(self, wanted_version: int) -> dict[str, Lease]:
        """The replicas to bring this version to; {} if there is nothing to do, or nobody to do it for. Raises what ends the
        run."""
        self._wanted_version = wanted_version
        self._attendance.look()
        self._heed_others()
        live = self._attendance.live
        trusted = self._exclusions.trusted(live, now_s())
        LIVE_REPLICAS.labels("left_out").set(len(live) - len(trusted))
        in_need = self._in_need(trusted)
        self._offer(in_need)
        self._show()
        return in_need

    def _in_need(self, trusted: dict[str, Lease]) -> dict[str, Lease]:
        """See `look`. trusted: the replicas that are live and not left out."""
        holding = bool(self._attendance.holding(self._wanted_version))
        if (
            holding and not trusted and self.confirmed_version != self._wanted_version
        ):  # they have caught up by themselves
            self._confirm()
        if not self._attendance.live:
            if not self._patience.has_begun:
                log.warning("no replica is left; waiting up to %.0f s for one", self._patience.longest_s)
            self._patience.without_replica(now_s())
            return {}
        if not trusted:
            return {}
        self._patience.replica_is_live()
        return {} if holding and self.confirmed_version == self._wanted_version else trusted

    def bring(self, wanted: Snapshot, live: dict[str, Lease]) -> SyncReport | None:
        """Bring this version to these replicas, in a new generation if they changed. Returns None if it failed: then look and
        call again. Raises what ends the run, or Stopped."""
        try:
            if not self._is_met(live):
                self._form(live)
            return self._send(wanted)
        except (WeightSyncError, DeadlineExceeded) as fault:  # not Unequal, which ends the run
            self._count_failure(fault)
            return None
        finally:
            self._show()

    def _form(self, live: dict[str, Lease]) -> None:
        """Form the next generation of the group from these replicas. Raises WeightSyncError, DeadlineExceeded or Stopped.

        Waits for: every live replica to join the new generation.
        Until: deadlines.weight_join_s; as `RollCall.collect` says for a member that is late or gone.
        Ended by: the last confirmation, the first refusal, the deadline, or the stop signal; replicas that failed are then left
            out for a while.
        Metric: ratchet_waiting{room="learner", awaiting="replicas to join"}.
        """
        self._is_formed = False
        self._generation = self._membership.next_generation(
            above=max([self._generation, *self._attendance.generations()])
        )
        self._members = {replica_id: lease.incarnation for replica_id, lease in live.items()}
        rendezvous = self._rendezvous(live)
        replica_at = {rank: replica_id for replica_id, rank in rendezvous.first_ranks.items()}

        def arrived(rank: int) -> None:
            if rank in replica_at:
                self._roll_call.note_arrival(replica_at[rank])

        with waiting("learner", "replicas to join"):
            self._roll_call.ask("joined", self._generation, self._members)
            self._notices.announce(rendezvous)
            deadline = Deadline.after(
                self._config.deadlines.weight_join_s, f"generation {self._generation} of the weight group to form"
            )
            formed = in_daemon_thread(lambda: self._meet(rendezvous, deadline, arrived), "weight-group")
            self._roll_call.collect(deadline, formed, self._renew)
            if late := self._roll_call.left_behind():
                raise WeightSyncError(f"{', '.join(sorted(late))} did not say that they have joined")
        self._is_formed = True
        self._formed_s = now_s()
        GENERATION.set(self._generation)
        log.info("generation %d of the weight group: %s", self._generation, ", ".join(sorted(live)))

    def _meet(self, rendezvous: Rendezvous, deadline: Deadline, arrived: Callable[[int], None]) -> None:
        """Meet the members; over HTTP they meet nowhere."""
        if rendezvous.backend == "http":
            for rank in rendezvous.first_ranks.values():
                arrived(rank)
        else:
            self._channel.form(rendezvous, deadline, arrived)

    def _send(self, wanted: Snapshot) -> SyncReport:
        """Send one version to every member and have each prove it. Raises WeightSyncError, DeadlineExceeded or Stopped.

        Waits for: every member to receive the weights, swap them in and confirm the probe.
        Until: deadlines.weight_transfer_s; as `RollCall.collect` says for a member that is late or gone, which is left behind.
        Ended by: the last confirmation, the first refusal, a lost member, the deadline, or the stop signal; replicas that failed
            are then left out for a while.
        Metric: ratchet_waiting{room="learner", awaiting="replicas to confirm"}.
        """
        start = now_s()
        changes = self._base.changes(wanted, self._members, self._attendance.holding)
        manifest = self._manifest(wanted, changes)
        with waiting("learner", "replicas to confirm"):
            deadline = Deadline.after(self._config.deadlines.weight_transfer_s, "replicas to confirm the weights")
            self._roll_call.ask("swapped", self._generation, self._members, wanted.policy_version)
            self._notices.announce(manifest)
            sending = self._sender.begin(lambda: self._move(wanted, manifest, changes, deadline))
            confirmed = self._roll_call.collect(deadline, sending, self._renew)
        seconds = now_s() - start
        gap = self._proof.check(confirmed, wanted.policy_version)
        self._leave_behind(self._roll_call.left_behind(), wanted, sending)
        self._exclusions.clear(self._members)
        self._attendance.prove(self._members, wanted.policy_version)
        self._confirm()
        self._base.is_proved(wanted)
        SYNC_SECONDS.observe(seconds)
        SYNCS.labels("confirmed").inc()
        return SyncReport.of(
            confirmed, wanted.policy_version, self._generation, seconds=seconds, gap=gap, proof=self._proof
        )

    def _move(self, wanted: Snapshot, manifest: WeightManifest, changes: Changes, deadline: Deadline) -> None:
        """Send the bytes; over HTTP the members fetch them."""
        if self._config.weights.type != "http":
            with wanted.sending():
                self._channel.send(manifest, sent(wanted.flat, changes), deadline)
            count_sent(wanted.flat, changes)

    def _leave_behind(self, late: dict[str, str], wanted: Snapshot, sending: "Future[None]") -> None:
        """Go on without these members of the group. sending: it may still be busy with one of them."""
        if not late:
            return
        self._members = {each: name for each, name in self._members.items() if each not in late}
        self._is_formed = False
        self._leave_out(late)
        LEFT_BEHIND.inc(len(late))
        if not sending.done():
            wanted.give_up()
            self._channel.close()

    def _leave_out(self, at_fault: dict[str, str]) -> dict[str, float]:
        """Leave these members out for a while: replica_id -> seconds. What those of them that are absent have claimed goes to
        others."""
        self._attendance.give_back(at_fault.keys() & self._roll_call.absent)
        return self._exclusions.blame(at_fault, now_s())

    def _confirm(self) -> None:
        """The wanted version is where it is to be."""
        self._patience.confirmed()
        self._named_nobody = False
        self.confirmed_version = self._wanted_version

    def _renew(self) -> None:
        """What is done now and then in a wait."""
        self._attendance.look()
        self._offer({})
        self._notices.repeat_what_was_lost()

    def _heed_others(self) -> None:
        """Take in which replicas have caught up by themselves. Raises Unequal."""
        for said in self._roll_call.others():
            if said.phase != "swapped" or said.fault is not None:
                continue
            self._proof.check([said], said.policy_version)
            self._attendance.prove({said.replica_id: said.incarnation}, said.policy_version)
            self._exclusions.shorten(said.replica_id, said.incarnation, now_s())
            CATCH_UPS.inc()
            log.info("%s has caught up by itself: version %d", said.replica_id, said.policy_version)

    def _offer(self, in_need: dict[str, Lease]) -> None:
        """Say where the wanted version is, and to whom no broadcast brings it. in_need: see `look`."""
        alone = {
            replica_id: lease.incarnation
            for replica_id, lease in self._attendance.live.items()
            if replica_id not in in_need and (not self._is_member(lease) or self._has_left(lease))
        }
        self._notices.offer(self._wanted_version, self._generation, alone)

    def _is_met(self, live: dict[str, Lease]) -> bool:
        """Whether the group's members are these replicas, and all of them are still in it."""
        incarnations = {replica_id: lease.incarnation for replica_id, lease in live.items()}
        return self._is_formed and self._members == incarnations and not any(map(self._has_left, live.values()))

    def _has_left(self, lease: Lease) -> bool:
        """Whether a member says that it is not in the generation, once that is as old as a lease: all have been renewed."""
        is_old = self._is_formed and now_s() - self._formed_s > self._config.deadlines.lease_s
        return is_old and lease.pg_generation != self._generation

    def _is_member(self, lease: Lease) -> bool:
        return self._members.get(lease.replica_id) == lease.incarnation

    def _show(self) -> None:
        """Set the gauges of members, and of replicas that hold the wanted version and that do not."""
        live = self._attendance.live
        in_step = len(self._attendance.holding(self._wanted_version))
        REPLICA_RANKS.set(sum(lease.ranks for lease in live.values()))
        REPLICAS.set(sum(map(self._is_member, live.values())) if self._is_formed else 0)
        LIVE_REPLICAS.labels("in_step").set(in_step)
        LIVE_REPLICAS.labels("behind").set(len(live) - in_step)

    def _rendezvous(self, live: dict[str, Lease]) -> Rendezvous:
        """Where and with which ranks these replicas meet in the generation that is forming."""
        first_ranks: dict[str, int] = {}
        size = 1  # rank 0 is the learner
        for replica_id, lease in sorted(live.items()):
            first_ranks[replica_id] = size
            size += lease.ranks
        return Rendezvous(
            learner=self._notices.learner,
            pg_generation=self._generation,
            backend=self._config.weights.type,
            host=self._address[0],
            port=self._address[1],
            size=size,
            first_ranks=first_ranks,
            timeout_s=self._config.deadlines.weight_join_s,
        )

    def _manifest(self, wanted: Snapshot, changes: Changes) -> WeightManifest:
        is_delta = any(changes.deltas)
        return WeightManifest(
            policy_version=wanted.policy_version,
            pg_generation=self._generation,
            buckets=wanted.sealed(),
            probes=wanted.probes,
            bound=self._proof.bound,
            deltas=changes.deltas if is_delta else (),
            source=self._source if is_delta else None,
        )

    def _count_failure(self, fault: Exception) -> None:
        """Give the group up, and leave out for a while the replicas that caused the failure; twice in a row nobody can be named,
        and all are left out. Raises what ends the run."""
        SYNCS.labels("failed").inc()
        self._base.failed()
        at_fault = self._roll_call.at_fault(give_up=self._channel.close)
        if not at_fault and self._named_nobody:
            at_fault = self._members
        self._named_nobody = not at_fault
        self._members = {}
        self._is_formed = False
        seconds = self._leave_out(at_fault)
        left_out = ", ".join(f"{replica_id} for {wait_s:.0f} s" for replica_id, wait_s in seconds.items())
        log.warning(
            "weights did not reach every replica: %s. Left out: %s", fault, left_out or "nobody; all are invited again"
        )
        self._patience.failed(fault, now_s())
