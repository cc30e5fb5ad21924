"""The process group of one generation: where its members meet, and the broadcast from learner rank 0 to all of them.

No backend lets a rank join a living group, and a group that lost a member cannot be used again. So membership changes by
forming the next generation, under a prefix of its own in the same store, without a restart of any process. These groups
are independent of the default group that DeepSpeed uses. collective.py makes the backends keep to their deadline.
"""

import re
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from services.clock import Deadline, sleep
from services.errors import DeadlineExceeded, InputError, WeightSyncError
from services.loopback import is_loopback
from services.threads import in_daemon_thread
from services.weights.collective import Collective, FormCollective, form_collective, form_in_time
from services.wire.weights import Rendezvous, WeightManifest


def bucket_device(backend: str, device: torch.device) -> torch.device:
    """The device that buckets are sent from and received on: for NCCL the GPU of the weights, for gloo the CPU.

    device: the weights' device. Raises InputError when it is not a GPU and the backend needs one.
    """
    if backend != "nccl":
        return torch.device("cpu")
    if device.type != "cuda":
        raise InputError(
            f'weights.type = "nccl" moves weights from GPU to GPU, and here they lie on {device}; '
            'set device = "cuda", or weights.type = "gloo"'
        )
    return device


def check_backend(backend: str, device: torch.device) -> None:
    """Raises InputError when this host cannot use the backend; called before anything expensive starts.

    device: where the weights will be.
    """
    bucket_device(backend, device)
    if backend == "nccl" and not dist.is_nccl_available():
        raise InputError('this build of torch has no NCCL; set weights.type = "gloo" or install the CUDA build')
    if backend == "nccl" and not torch.cuda.is_available():
        raise InputError(
            'weights.type = "nccl", and torch finds no GPU on this host; `ratchet doctor` says what is here'
        )


class RendezvousStore:
    """The key-value store on learner rank 0 through which members find each other; it lasts for the whole run.

    If its host is a loopback address it listens on loopback only, otherwise on every interface. It has no
    authentication, so keep its port inside the network of the run.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        """port: 0 takes any free port, and the attribute `port` says which. Raises WeightSyncError when it cannot be bound."""
        address = "127.0.0.1" if is_loopback(host) else ""
        try:
            listener = socket.create_server((address, port), backlog=1024)
        except OSError as fault:
            raise WeightSyncError(
                f"the rendezvous store cannot listen on {host}:{port}: {fault}. "
                "Free the port, or set weights.port to another one, or to 0 for any"
            ) from fault
        self.host = host
        self.port = int(listener.getsockname()[1])
        self.tcp_store = TCPStore(
            "127.0.0.1",
            self.port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),  # the store owns and closes it
        )

    def client(self, deadline: Deadline) -> TCPStore:
        """A connection of its own: a generation that was given up may go on waiting in one, and nobody else gets a word in."""
        return TCPStore("127.0.0.1", self.port, is_master=False, wait_for_workers=False, timeout=_left(deadline))


ALL_HERE = "all here"
"""The key that rank 0 sets once every member has come, or when it gives up waiting for them."""
CALLED_OFF = b"called off"
OVER = "over"
"""The key that rank 0 sets when it leaves a generation that was formed."""
LOOK_EVERY_S = 0.02
"""How often rank 0 looks for those who have not come."""
LOOK_FOR_THE_END_S = 0.2
"""How often a member that receives looks whether the generation is over."""


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
        self._arrived = arrived
        self._called_off = called_off
        self._store: Any = None
        self._group: Collective | None = None
        try:
            if store is None:
                store = TCPStore(rendezvous.host, rendezvous.port, wait_for_workers=False, timeout=_left(deadline))
            store.set_timeout(_left(deadline))
            prefixed = PrefixStore(f"generation{rendezvous.pg_generation}", store)
            self._meet(prefixed, deadline)
            store.set_timeout(_left(deadline))
            self._store = prefixed
            self._group = form_in_time(deadline, lambda left: form(rendezvous, rank, prefixed, left, device))
        except (RuntimeError, ValueError) as fault:
            if _ran_out_of_time(fault):
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

    def _meet(self, store: Any, deadline: Deadline) -> None:
        """See in the store that every member is there before any of them enters the backend.

        A backend that lacks a member may wait beyond every deadline (NCCL for ever, unless told otherwise). Rank 0
        waits for all and lets all in, so that a member which comes after rank 0 gave up does not enter alone.

        Waits for: all other members of the generation; the others then for rank 0.
        Until: the deadline (deadlines.weight_join_s).
        Ended by: the last member's key, or rank 0's; the deadline, or rank 0 giving up (WeightSyncError that names the ranks
            missing).
        Metric: ratchet_waiting of the publisher or the follower that joins.
        """
        size = self._rendezvous.size
        if self._rank not in range(size):
            raise ValueError(f"rank {self._rank} is not one of 0 to {size - 1}")
        keys = {rank: f"here/{rank}" for rank in range(size)}
        store.set(keys[self._rank], "")
        try:
            if self._rank == 0:
                if self._all_come(store, keys, deadline):
                    store.set(ALL_HERE, "")
                    return
                store.set(ALL_HERE, CALLED_OFF)
            else:
                store.wait([ALL_HERE], _left(deadline))
                if store.get(ALL_HERE) != CALLED_OFF:
                    return
            raise self._fault("rank 0 gave up waiting for all to come", "The learner forms the next generation")
        except RuntimeError as fault:
            if not _ran_out_of_time(fault):
                raise
            missing = [str(rank) for rank, key in keys.items() if not store.check([key])]
            who = f"rank {' and rank '.join(missing)} did not come" if missing else "rank 0 did not let them in"
            raise self._fault(
                f"not all {size} members met in time: {who}",
                "Look for a member that ended or cannot reach this address; the learner forms the next generation",
            ) from fault

    def _all_come(self, store: Any, keys: dict[int, str], deadline: Deadline) -> bool:
        """Look for the keys of the others until all are there; False if the meeting was called off. See `_meet`."""
        missing = dict(keys)
        while True:
            for rank, key in list(missing.items()):
                if store.check([key]):
                    del missing[rank]
                    self._arrived(rank)
            if not missing:
                return True
            if self._called_off():
                return False
            try:
                deadline.remaining_s()
            except DeadlineExceeded as late:
                raise RuntimeError(f"timeout: {late}") from late
            sleep(LOOK_EVERY_S)

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
        group = self._group
        if group is None:
            raise self._fault("the group is closed", "Join the next generation")
        if flat.device.type != self._device.type:
            raise self._fault(
                f"a bucket lies on {flat.device}, the group moves what is on {self._device}", "Pack it there"
            )
        try:
            if self._rank == 0:
                group.broadcast(flat, _left(deadline))
            else:
                self._receive(group, flat, deadline)
        except RuntimeError as fault:
            raise self._fault(
                f"a broadcast of {flat.numel()} bytes failed",
                "A member ended or is late; the learner forms the next generation from those that are left",
                fault,
            ) from fault
        if self._group is not group:  # NCCL lets an aborted wait return as if the bytes had come
            raise self._fault(
                f"the group was closed during a broadcast of {flat.numel()} bytes", "Join the next generation"
            )

    def _receive(self, group: Collective, flat: Tensor, deadline: Deadline) -> None:
        """Receive in a thread, which is left behind when rank 0 or this end leaves the generation.

        gloo does not end a receive in the middle of a message when the connection breaks: it waits for its deadline. And a peer
        that NCCL has aborted is not always noticed.
        """
        left = _left(deadline)
        moving = in_daemon_thread(lambda: group.broadcast(flat, left), "weight-bucket")
        over = in_daemon_thread(lambda: self._until_over(moving), "weight-generation-over")
        while self._group is group and not moving.done() and not over.done():
            wait({moving, over}, LOOK_FOR_THE_END_S, FIRST_COMPLETED)
        if moving.done():
            moving.result()
        elif self._group is group:
            raise RuntimeError("rank 0 has left the generation")

    def _until_over(self, moving: "Future[None]") -> None:
        """Return once rank 0 has left the generation, its store cannot be reached, or the bucket has arrived."""
        with suppress(RuntimeError):
            while not moving.done():
                sleep(LOOK_FOR_THE_END_S)
                if self._store.check([OVER]):
                    return

    def close(self) -> None:
        """Leave the group. A thread that waits in `broadcast` then raises WeightSyncError; when rank 0 leaves, in all members."""
        group, self._group = self._group, None
        if group is None:
            return
        if self._rank == 0:
            with suppress(RuntimeError):  # the store is gone with this process
                self._store.set(OVER, "")
        group.abort()

    def _fault(self, what: str, next_action: str, fault: Exception | None = None) -> WeightSyncError:
        rendezvous = self._rendezvous
        cause = f": {str(fault).splitlines()[0].split(' This is typically')[0].rstrip('.!')}" if fault else ""
        return WeightSyncError(
            f"generation {rendezvous.pg_generation}, rank {self._rank} of {rendezvous.size} ({rendezvous.backend}, "
            f"store {rendezvous.host}:{rendezvous.port}): {what}{cause}. {next_action}"
        )


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


def _left(deadline: Deadline) -> timedelta:
    return timedelta(seconds=deadline.remaining_s())


def _ran_out_of_time(fault: Exception) -> bool:
    """Whether a deadline passed, as opposed to a failure at once. The backends have no exception of their own for it."""
    return bool(re.search(r"time(d )?-?out", str(fault), re.IGNORECASE))
