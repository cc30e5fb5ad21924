"""Carries each policy version to every live replica and has equality proved, beside the training loop.

A thread compares what is wanted (the newest version at every live replica) with what is confirmed, and closes the gap:

    live replicas differ from the group's members -> announce and form the next generation
    newest version not confirmed by every member  -> announce the manifest, send, collect confirmations

A member that fails is left out for a while, longer each time (exclusions.py); the others meet again in the next generation.
So replicas join, leave, fail and die while the run goes on. No replica that takes the weights for deadlines.first_replica_s,
or a probe gap above the bound, ends the run with an error that says who and why.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.metrics import GAP_NATS, GENERATION, REPLICAS, SYNC_SECONDS, SYNCS
from learner.publish.exclusions import Exclusions
from learner.publish.roll_call import RollCall
from services.clock import Deadline, now_s
from services.config import RunConfig
from services.errors import DeadlineExceeded, WeightSyncError
from services.metrics import waiting
from services.weights.buckets import pack
from services.weights.channel import WeightChannel
from services.weights.membership import Membership
from services.wire.membership import Lease
from services.wire.weights import Bucket, Rendezvous, WeightManifest

log = logging.getLogger("ratchet.learner")

LOOK_EVERY_S = 0.5
"""How often membership is compared with the group while there is nothing to send."""


@dataclass(frozen=True)
class Snapshot:
    """One policy version, packed for the wire."""

    policy_version: int
    buckets: tuple[Bucket, ...]
    flat: tuple[Tensor, ...]
    probe_token_ids: tuple[int, ...]
    probe_logp: tuple[float, ...]


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


def snapshot(
    policy_version: int,
    tensors: list[tuple[str, Tensor]],
    bucket_mib: int,
    probe: tuple[int, ...],
    probe_logp: list[float],
    device: torch.device | None = None,
) -> Snapshot:
    """device: where the buckets lie, by default the CPU; `bucket_device` says where they have to."""
    packed = pack(tensors, bucket_mib, device)
    return Snapshot(
        policy_version,
        tuple(bucket for bucket, _ in packed),
        tuple(flat for _, flat in packed),
        probe,
        tuple(probe_logp),
    )


class WeightPublisher:
    """Owned by learner rank 0. `host` and `port` are where the rendezvous store listens."""

    def __init__(
        self,
        config: RunConfig,
        membership: Membership,
        channel: WeightChannel,
        address: tuple[str, int],
        on_sync: Callable[[SyncReport], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._config, self._membership, self._channel = config, membership, channel
        self._address, self._on_sync, self._stopping = address, on_sync, stopping
        self._roll_call = RollCall(membership.confirmations())
        self._members: dict[str, str] = {}  # replica_id -> incarnation
        self._exclusions = Exclusions(config.deadlines.lease_s)
        self._generation = 0
        self._wanted: Snapshot | None = None
        self._confirmed_version: int | None = None
        self._without_replica_since_s: float | None = now_s()
        self._last_failure: Exception | None = None  # since a version was confirmed
        self._fault: BaseException | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the wanted version; waits while the one before is still on its way. Raises what ended the thread."""
        self.wait()
        with self._changed:
            self._wanted = snapshot
            self._changed.notify_all()

    def wait(self) -> None:
        """Until every live replica has confirmed the wanted version, or `stopping`."""
        with waiting("learner", "weight confirmations"), self._changed:
            while self._fault is None and not self._settled() and not self._stopping():
                self._changed.wait(LOOK_EVERY_S)
        self.check()

    @property
    def confirmed_version(self) -> int | None:
        """What every live replica samples under; None while they hold different weights, or none."""
        return self._confirmed_version

    def _settled(self) -> bool:
        return self._wanted is None or self._confirmed_version == self._wanted.policy_version

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout=self._config.deadlines.shutdown_s)

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._settled() and not self._closing:
                        self._changed.wait(LOOK_EVERY_S)
                    if self._closing:
                        return
                    wanted = self._wanted
                if wanted is not None:
                    self._bring(wanted)
        except BaseException as fault:  # handed to the training loop, which raises it
            with self._changed:
                self._fault = fault
                self._changed.notify_all()
        finally:
            self._channel.close()

    def _bring(self, wanted: Snapshot) -> None:
        """Close the gap between wanted and confirmed, once."""
        live = self._exclusions.trusted(self._membership.live(), now_s())
        if not live:
            self._await_replica()
            return
        if self._last_failure is None:
            self._without_replica_since_s = None
        members = {replica_id: lease.incarnation for replica_id, lease in live.items()}
        if members == self._members and self._confirmed_version == wanted.policy_version:
            return
        try:
            if members != self._members:
                self._form(live)
            self._send(wanted)
        except (WeightSyncError, DeadlineExceeded) as fault:
            self._count_failure(fault)

    def _await_replica(self) -> None:
        self._members = {}
        if self._without_replica_since_s is None:
            log.warning("no replica left; waiting up to %.0f s for one", self._config.deadlines.first_replica_s)
        self._check_patience()
        with self._changed:
            if not self._closing:
                self._changed.wait(LOOK_EVERY_S)

    def _check_patience(self) -> None:
        """Raises once there has been no replica with the weights for first_replica_s."""
        now, deadline_s = now_s(), self._config.deadlines.first_replica_s
        if self._without_replica_since_s is None:
            self._without_replica_since_s = now
        late_s = now - self._without_replica_since_s - deadline_s
        if late_s <= 0:
            return
        if self._last_failure is None:
            raise DeadlineExceeded("a rollout replica to register", late_s=late_s)
        raise WeightSyncError(
            f"no replica has taken the weights for {deadline_s + late_s:.0f} s (deadlines.first_replica_s); "
            f"last: {self._last_failure}"
        )

    def _form(self, live: dict[str, Lease]) -> None:
        self._members = {}
        self._generation = self._membership.next_generation()
        first_ranks, size = {}, 1
        for replica_id, lease in sorted(live.items()):
            first_ranks[replica_id] = size
            size += lease.ranks
        join_s = self._config.deadlines.weight_join_s
        rendezvous = Rendezvous(
            pg_generation=self._generation,
            backend=self._config.weights.type,
            host=self._address[0],
            port=self._address[1],
            size=size,
            first_ranks=first_ranks,
            timeout_s=join_s,
        )
        members = {replica_id: lease.incarnation for replica_id, lease in live.items()}
        self._roll_call.ask("joined", self._generation, members)
        self._membership.announce(rendezvous)
        self._channel.form(
            rendezvous, Deadline.after(join_s, f"generation {self._generation} of the weight group to form")
        )
        self._roll_call.collect(Deadline.after(join_s, "replicas to join the weight group"))
        self._members = members
        GENERATION.set(self._generation)
        REPLICAS.set(len(live))
        log.info("generation %d of the weight group: %s", self._generation, ", ".join(sorted(live)))

    def _send(self, wanted: Snapshot) -> None:
        deadline = Deadline.after(self._config.deadlines.weight_transfer_s, "replicas to confirm the weights")
        manifest = WeightManifest(
            policy_version=wanted.policy_version,
            pg_generation=self._generation,
            buckets=wanted.buckets,
            probe_token_ids=wanted.probe_token_ids,
            probe_logp=wanted.probe_logp,
        )
        start = now_s()
        self._roll_call.ask("swapped", self._generation, self._members, wanted.policy_version)
        self._membership.announce(manifest)
        self._channel.send(manifest, wanted.flat, deadline)
        confirmed = self._roll_call.collect(deadline)
        seconds = now_s() - start
        gap = max(confirmation.gap_nats or 0.0 for confirmation in confirmed)
        GAP_NATS.set(gap)
        for confirmation in confirmed:
            if confirmation.gap_nats is None or not confirmation.gap_nats <= self._config.max_gap_nats:
                raise _Unequal(
                    f"replica {confirmation.replica_id} does not hold the learner's weights: after policy version "
                    f"{wanted.policy_version} its probe differs by {confirmation.gap_nats} nats, above the bound of "
                    f"{self._config.max_gap_nats}. Compare versions and dtypes of the two with `ratchet doctor`; "
                    "if the gap is rounding alone, raise weights.max_gap_nats"
                )
        SYNC_SECONDS.observe(seconds)
        SYNCS.labels("confirmed").inc()
        self._exclusions.clear(self._members)
        self._last_failure = self._without_replica_since_s = None
        self._on_sync(
            SyncReport(
                policy_version=wanted.policy_version,
                pg_generation=self._generation,
                replicas=len(confirmed),
                seconds=seconds,
                sampling_gap_s=[confirmation.pause_s for confirmation in confirmed],
                transfer_s=[confirmation.transfer_s for confirmation in confirmed],
                running_sequences=sum(confirmation.running_sequences for confirmation in confirmed),
                gap_nats=gap,
            )
        )
        with self._changed:
            self._confirmed_version = wanted.policy_version
            self._changed.notify_all()

    def _count_failure(self, fault: Exception) -> None:
        """Forget the group, and leave out for a while whoever it failed at."""
        if isinstance(fault, _Unequal):
            raise fault
        SYNCS.labels("failed").inc()
        at_fault = self._roll_call.at_fault(give_up=self._channel.close)
        self._members, self._confirmed_version, self._last_failure = {}, None, fault
        seconds = self._exclusions.blame(at_fault, now_s())
        log.warning(
            "weights did not reach every replica: %s. Left out: %s",
            fault,
            ", ".join(f"{replica_id} for {wait_s:.0f} s" for replica_id, wait_s in seconds.items()),
        )
        self._check_patience()


class _Unequal(WeightSyncError):
    """A replica holds other weights than were sent: nothing that retrying would mend."""


def probe_tokens(prompts: list[list[int]], length: int) -> tuple[int, ...]:
    """A fixed sequence of real prompt tokens, at least two and at most `length` of them."""
    tokens = [token for prompt in prompts for token in prompt][:length]
    return tuple(tokens if len(tokens) > 1 else tokens * 2)


def torch_dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
