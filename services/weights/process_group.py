"""The process group of one generation: where its members meet, and the broadcast from learner rank 0 to all of them.

No backend lets a rank join a living group, and a group that lost a member cannot be used again. So membership changes by
forming the next generation, under a prefix of its own in the same store, without a restart of any process. These groups
are independent of the default group that DeepSpeed uses. meeting.py is where members meet; collective.py makes the backends
keep to their deadline.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from services.clock import Deadline
from services.errors import WeightSyncError
from services.threads import LastingThread, in_daemon_thread
from services.weights.collective import Collective, FormCollective, form_collective, form_in_time
from services.weights.meeting import RendezvousStore, group_fault, meet, ran_out_of_time, time_left
from services.wire.weights import Rendezvous, WeightManifest

OVER = "over"
"""The key that rank 0 sets when it leaves a generation that was formed."""
LOOK_FOR_THE_END_S = 0.2
"""How often a member that receives looks whether the generation is over."""
AHEAD = 2
"""Buckets that may come before the one that came first is taken: so much of what is made for them is held at a time."""


def _ignore(rank: int) -> None:
    """What rank 0 does by default when a member comes."""


class BroadcastGroup:
    """One member's end of one generation."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        rank: int,
        deadline: Deadline,
        device: torch.device,
        store: Any = None,
        form: FormCollective = form_collective,
        arrived: Callable[[int], None] = _ignore,
        called_off: Callable[[], bool] = lambda: False,
    ) -> None:
        """Meets the other members.

        device: where broadcast tensors lie. store: given by the process that owns it; the others connect to it. arrived: called
        on rank 0 with the rank of each other member that comes. called_off: asked on rank 0 whether it is to give up. Raises
        WeightSyncError when not all members come before the deadline, or when the group cannot be formed at all.

        Waits for: all other members of the generation.
        Until: the deadline (deadlines.weight_join_s).
        Ended by: the last member joining; the deadline or a lost member (WeightSyncError).
        Metric: ratchet_waiting of the publisher or the follower that joins.
        """
        self._rendezvous = rendezvous
        self._rank = rank
        self._device = device
        self._store: Any = None
        self._group: Collective | None = None
        self._receiving = LastingThread("weight-buckets")
        try:
            if store is None:
                store = TCPStore(rendezvous.host, rendezvous.port, wait_for_workers=False, timeout=time_left(deadline))
            store.set_timeout(time_left(deadline))
            prefixed = PrefixStore(f"generation{rendezvous.pg_generation}", store)
            meet(prefixed, rendezvous, rank, deadline, arrived=arrived, called_off=called_off)
            store.set_timeout(time_left(deadline))
            self._store = prefixed
            self._group = form_in_time(deadline, lambda left: form(rendezvous, rank, prefixed, left, device))
        except (RuntimeError, ValueError) as fault:
            if ran_out_of_time(fault):
                raise self._fault(
                    f"not all {rendezvous.size} members met",
                    "Look for a member that ended or cannot reach this address; the learner forms the next generation",
                    fault,
                ) from fault
            raise self._fault(
                "this member could not form the group",
                "No member is late; the cause is this host, or versions that differ between members: "
                "compare them with `ratchet doctor`",
                fault,
            ) from fault

    def broadcast(self, flat: Tensor, deadline: Deadline) -> None:
        """Send `flat` from rank 0, or receive into it on the others. uint8, contiguous, the same size everywhere; on a GPU, what
        was to be written to it is written, and what was to read it has read it.

        Raises WeightSyncError when a member is gone or late, or this end or rank 0 left the generation meanwhile; the group
        cannot be used after that, and `flat` may still be written to until the deadline.

        Waits for: all members, to send or receive this bucket.
        Until: the deadline (deadlines.weight_transfer_s).
        Ended by: the bucket's arrival; the deadline or a lost member (WeightSyncError); `close` in another thread, or of rank 0.
        Metric: ratchet_waiting of the publisher or the follower that broadcasts.
        """
        group = self._usable()
        if self._rank != 0:
            for _ in self.receive(1, lambda _: flat, deadline):
                pass
            return
        self._move(group, flat, deadline)

    def receive(self, buckets: int, place: Callable[[int], Tensor], deadline: Deadline) -> Iterator[int]:
        """Receive this many buckets, as `broadcast` does, and yield the number of each once it has come; the next one is on its
        way then.

        place: where the bucket with this number is received; asked in another thread, for at most AHEAD that were not taken, and
        no more once this has raised or is closed. Raises WeightSyncError as `broadcast` does, in the turn of the one that did
        not come.

        Waits for: rank 0 and the members on the way, to send the next bucket.
        Until: the deadline (deadlines.weight_transfer_s).
        Ended by: the bucket's arrival; the deadline or a lost member (WeightSyncError); `close` in another thread, or of rank 0.
        Metric: ratchet_waiting of the follower that receives.
        """
        group = self._usable()
        turns: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: one has come; False: look what has ended
        ahead = threading.Semaphore(AHEAD)
        placing, given_up = threading.Lock(), threading.Event()

        def move() -> None:
            for number in range(buckets):
                if not ahead.acquire(timeout=time_left(deadline).total_seconds()):
                    raise self._lost(TimeoutError("nobody takes what has come"))
                with placing:
                    if given_up.is_set():
                        return
                    flat = place(number)
                self._move(group, flat, deadline)
                turns.put(True)

        # In a thread, which is left behind when rank 0 or this end leaves the generation: gloo does not end a receive in the
        # middle of a message when the connection breaks, it waits for its deadline, and a peer that NCCL has aborted is not
        # always noticed.
        moving = self._receiving.begin(move)
        over = in_daemon_thread(lambda: self._until_over(moving), "weight-generation-over")
        for ended in (moving, over):
            ended.add_done_callback(lambda _: turns.put(False))
        taken = 0
        try:
            while taken < buckets:
                try:
                    has_come = turns.get(timeout=LOOK_FOR_THE_END_S)
                except queue.Empty:
                    has_come = False
                if has_come:
                    yield taken
                    taken += 1
                    ahead.release()
                elif moving.done() and turns.empty():
                    moving.result()
                elif self._group is not group:
                    raise self._left()
                elif over.done() and turns.empty():
                    raise self._lost(RuntimeError("rank 0 has left the generation"))
        finally:
            with placing:  # from here on no further place is asked for
                given_up.set()

    def _usable(self) -> Collective:
        if self._group is None:
            raise self._fault("the group is closed", "Join the next generation")
        return self._group

    def _move(self, group: Collective, flat: Tensor, deadline: Deadline) -> None:
        """Send or receive one bucket. Raises WeightSyncError."""
        if flat.device.type != self._device.type:
            raise self._fault(
                f"a bucket lies on {flat.device}, the group moves what is on {self._device}", "Pack it there"
            )
        try:
            group.broadcast(flat, time_left(deadline))
        except RuntimeError as fault:
            raise self._lost(fault) from fault
        if self._group is not group:  # NCCL lets an aborted wait return as if the bytes had come
            raise self._left()

    def _until_over(self, moving: "Future[None]") -> None:
        """Return once rank 0 has left the generation, its store cannot be reached, or all buckets have arrived."""
        with suppress(RuntimeError):
            while not wait({moving}, LOOK_FOR_THE_END_S).done:
                if self._store.check([OVER]):
                    return

    def _lost(self, fault: Exception) -> WeightSyncError:
        return self._fault(
            "a broadcast failed",
            "A member ended or is late; the learner forms the next generation from those that are left",
            fault,
        )

    def _left(self) -> WeightSyncError:
        return self._fault("the group was closed during a broadcast", "Join the next generation")

    def close(self) -> None:
        """Leave the group. A thread that waits in `broadcast` then raises WeightSyncError; when rank 0 leaves, in all members."""
        group, self._group = self._group, None
        self._receiving.end()
        if group is None:
            return
        if self._rank == 0:
            with suppress(RuntimeError):  # the store is gone with this process
                self._store.set(OVER, "")
        group.abort()

    def _fault(self, what: str, next_action: str, fault: Exception | None = None) -> WeightSyncError:
        return group_fault(self._rendezvous, self._rank, what, next_action, fault)


class ProcessGroupChannel:
    """The WeightChannel of learner rank 0."""

    def __init__(self, store: RendezvousStore, device: torch.device | None = None) -> None:
        """device: where the buckets lie (`bucket_device`), by default the CPU."""
        self._store = store
        self._device = device or torch.device("cpu")
        # Guarded by _changing: `form` and `send` may be at work in a thread that was given up.
        self._changing = threading.Lock()
        self._group: BroadcastGroup | None = None
        self._generation: int | None = None

    def form(self, rendezvous: Rendezvous, deadline: Deadline, arrived: Callable[[int], None] = _ignore) -> None:
        self.close()
        generation = rendezvous.pg_generation
        self._generation = generation
        group = BroadcastGroup(
            rendezvous,
            0,
            deadline,
            self._device,
            self._store.client(deadline),
            arrived=arrived,
            called_off=lambda: self._generation != generation,
        )
        with self._changing:
            is_wanted = self._generation == generation
            if is_wanted:
                self._group = group
        if not is_wanted:
            group.close()
            raise WeightSyncError(f"generation {generation} was given up while it formed; form the next one")
        self._store.forget(below=generation - 1)  # those of the one before may still have to read that it is over

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[Tensor], deadline: Deadline) -> None:
        group = self._group
        if group is None or self._generation != manifest.pg_generation:
            raise WeightSyncError(
                f"version {manifest.policy_version} is announced for generation {manifest.pg_generation}, "
                f"but the group formed is of generation {self._generation}; form it first"
            )
        for flat in flat_buckets:
            group.broadcast(flat, deadline)

    def close(self) -> None:
        with self._changing:
            group, self._group = self._group, None
            self._generation = None
        if group is not None:
            group.close()
