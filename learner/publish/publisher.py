"""Carries policy versions to the live replicas and has equality proved, while the training loop goes on.

A thread compares what is wanted (the newest version at the live replicas) with what is confirmed, and closes the gap:

    newest version not confirmed -> form the next generation if the replicas changed, announce the manifest, send the weights,
                                    collect confirmations
    a replica outside the group  -> offer it the newest version, which it fetches by itself from the weight server

The training loop does not wait for a version to arrive: a newer one takes the place of one that has not begun to go. How far it
gets ahead is bounded by admission (learner/intake/admission.py), which gives no credit for steps beyond max_lag that are not
confirmed.

replica_group.py does either, once; here is the thread that does it again and again, and what the training loop sees of it.
So replicas join, leave, fail, hang and die while the run goes on. Two things end the run, with an error that says who and why: no
replica takes the weights for deadlines.first_replica_s (patience.py), or a replica's probe gap is above the bound.
"""

import threading
from collections.abc import Callable, Iterator

from learner.publish.replica_group import ReplicaGroup
from learner.publish.roll_call import Stopped
from learner.publish.snapshot import Snapshot
from learner.publish.sync_report import SyncReport
from learner.publish.weight_server import WeightServer
from services.clock import now_s
from services.config import RunConfig
from services.metrics import waiting
from services.weights.channel import WeightChannel
from services.weights.membership import Membership
from services.wire.weights import Gap

LOOK_EVERY_S = 0.5
"""How often membership is compared with the group while there is nothing to send."""


class WeightPublisher:
    """What the training loop sees of the replicas. Lives on rank 0; the thread begins with the object."""

    def __init__(
        self,
        config: RunConfig,
        *,
        membership: Membership,
        channel: WeightChannel,
        address: tuple[str, int],
        server: WeightServer,
        on_sync: Callable[[SyncReport], None],
        on_lost: Callable[[str], None],
        stopping: Callable[[], bool],
        generation: int = 0,
        rounding: Gap | None = None,
    ) -> None:
        """address: host and port of the rendezvous store. server: where replicas fetch versions by themselves; the publisher
        closes it. on_sync: called in the publisher's thread after each broadcast. on_lost: called there with the id of a replica
        whose claims others are to have (`Attendance`). stopping: whether the run was asked to stop. generation, rounding:
        see ReplicaGroup."""
        self._shutdown_s = config.deadlines.shutdown_s
        self._lease_s = config.deadlines.lease_s
        self._on_sync = on_sync
        self._stopping = stopping
        self._channel = channel
        self._server = server
        self._replicas = ReplicaGroup(  # the thread's alone
            config,
            membership,
            channel,
            address,
            source=server.source,
            stopping=lambda: self._closing or stopping(),
            on_lost=on_lost,
            generation=generation,
            rounding=rounding,
        )
        # Guarded by _changed, because both threads use them.
        self._changed = threading.Condition()
        self._wanted: Snapshot | None = None
        self._confirmed_version: int | None = None
        self._generation = generation
        self._outsiders_lag = False
        self._kernel_gap_nats: float | None = None
        self._fault: BaseException | None = None
        self._closing = False
        self._has_failed = False  # the last try; the thread's alone
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the wanted version, in place of one that has not begun to go. Raises what ended the thread."""
        self.should_stop()
        self._server.publish(snapshot, self._replicas.bound)
        with self._changed:
            self._wanted = snapshot
            self._changed.notify_all()

    def wait(self) -> None:
        """Return once no live replica samples under another version than the wanted one. Raises what ended the thread.

        Waits for: the replicas of the group to swap in the wanted version and prove it, and those that were left behind to stop
            sampling or to catch up.
        Until: the thread gives up: a try lasts at most deadlines.weight_join_s and deadlines.weight_transfer_s, and tries go on
            for deadlines.first_replica_s without a replica that takes the weights. For those left behind, two leases.
        Ended by: the last confirmation, the publisher's fault, or the stop signal.
        Metric: ratchet_waiting{room="learner", awaiting="weight confirmations"}; ratchet_learner_weight_syncs_total counts
        the tries.
        """
        settled_s: float | None = None
        with waiting("learner", "weight confirmations"), self._changed:
            while self._fault is None and not self._stopping():
                if self._settled():
                    settled_s = settled_s or now_s()
                    if not self._outsiders_lag or now_s() - settled_s > 2 * self._lease_s:
                        break
                self._changed.wait(LOOK_EVERY_S)
        self.should_stop()

    @property
    def confirmed_version(self) -> int | None:
        """The policy version that the replicas sample under, but for those that were left behind; None before the first."""
        with self._changed:
            return self._confirmed_version

    @property
    def generation(self) -> int:
        """The last generation of the weight group, as far as one was formed."""
        with self._changed:
            return self._generation

    @property
    def kernel_gap_nats(self) -> float | None:
        """What engine and learner differ by for the weights on disk, in nats; None before a replica has measured it."""
        with self._changed:
            return self._kernel_gap_nats

    def should_stop(self) -> bool:
        """Whether the run was asked to stop. Raises what ended the thread: it is the reason that no more groups come."""
        with self._changed:
            if self._fault is not None:
                raise self._fault
        return self._stopping()

    def close(self) -> None:
        """End the thread.

        Waits for: the publisher's thread to finish what it is doing.
        Until: deadlines.shutdown_s; then the process ends without it.
        Ended by: the end of the thread, which gives up the broadcast in progress.
        Metric: ratchet_waiting{room="learner", awaiting="the publisher to end"}.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        with waiting("learner", "the publisher to end"):
            self._thread.join(timeout=self._shutdown_s)
        self._server.close()

    def _settled(self) -> bool:
        """Whether the wanted version is confirmed. Called under _changed."""
        return self._wanted is None or self._confirmed_version == self._wanted.policy_version

    def _run(self) -> None:
        try:
            for wanted in self._work():
                self._bring(wanted)
        except Stopped:
            pass  # the run ends, and whoever stopped it knows
        except BaseException as fault:  # handed to the training loop, which raises it
            with self._changed:
                self._fault = fault
                self._changed.notify_all()
        finally:
            self._channel.close()

    def _work(self) -> Iterator[Snapshot]:
        """Yield the wanted version again and again until `close`, after a pause if it is the one of before and has not failed:
        each failure leaves somebody out, or the second one everybody, so failures end."""
        before: Snapshot | None = None
        while True:
            with self._changed:
                if not self._closing and self._wanted is before and not self._has_failed:
                    self._changed.wait(LOOK_EVERY_S)
                if self._closing:
                    return
                before = wanted = self._wanted
            if wanted is not None:
                yield wanted

    def _bring(self, wanted: Snapshot) -> None:
        """Close the gap between wanted and confirmed, once, and say what came of it."""
        live = self._replicas.look(wanted.policy_version)
        self._has_failed = False
        if (
            live and wanted.hold()
        ):  # where it is not held, its buckets are being filled with the version that follows it
            try:
                report = self._replicas.bring(wanted, live)
            finally:
                wanted.release(arrived=self._replicas.confirmed_version == wanted.policy_version)
            self._has_failed = report is None
            if report is not None:
                self._on_sync(report)
        with self._changed:
            self._confirmed_version = self._replicas.confirmed_version
            self._generation = self._replicas.generation
            self._outsiders_lag = self._replicas.outsiders_lag
            if (gap := self._replicas.kernel_gap) is not None:
                self._kernel_gap_nats = gap.largest_nats
            self._changed.notify_all()
