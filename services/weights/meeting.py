"""Where the members of a generation meet: a store on learner rank 0, in which each says that it has come.

All are there before any of them enters the backend, which may wait beyond every deadline for one that is missing.
"""

import re
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from services.clock import Deadline, sleep
from services.errors import DeadlineExceeded, WeightSyncError
from services.loopback import is_loopback
from services.wire.weights import Rendezvous

ALL_HERE = "all here"
"""The key that rank 0 sets once every member has come, or when it gives up waiting for them."""
CALLED_OFF = b"called off"
GENERATION = r"generation(\d+)/"
"""What the keys of a generation begin with."""
LOOK_EVERY_S = 0.02
"""How often rank 0 looks for those who have not come."""


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

    def forget(self, below: int) -> None:
        """Delete what the members of all generations below this one have written. Nobody comes back to them, and a generation of
        a thousand members leaves some thousands of keys."""
        for key in self.tcp_store.list_keys():
            if (found := re.match(GENERATION, key)) and int(found[1]) < below:
                self.tcp_store.delete_key(key)

    def client(self, deadline: Deadline) -> TCPStore:
        """A connection of its own: a generation that was given up may go on waiting in one, and nobody else gets a word in."""
        return TCPStore("127.0.0.1", self.port, is_master=False, wait_for_workers=False, timeout=time_left(deadline))


def meet(
    store: Any,
    rendezvous: Rendezvous,
    rank: int,
    deadline: Deadline,
    *,
    arrived: Callable[[int], None],
    called_off: Callable[[], bool],
) -> None:
    """See in the store of the generation that every member is there before any of them enters the backend.

    A backend that lacks a member may wait beyond every deadline (NCCL for ever, unless told otherwise). Rank 0 waits for all and
    lets all in, so that a member which comes after rank 0 gave up does not enter alone. arrived: called on rank 0 with the rank
    of each member that comes. called_off: asked on rank 0 whether it is to give up. Raises ValueError for a rank that there is
    not, RuntimeError where the store cannot be reached.

    Waits for: all other members of the generation; the others then for rank 0.
    Until: the deadline (deadlines.weight_join_s).
    Ended by: the last member's key, or rank 0's; the deadline, or rank 0 giving up (WeightSyncError that names the ranks
        missing).
    Metric: ratchet_waiting of the publisher or the follower that joins.
    """
    size = rendezvous.size
    if rank not in range(size):
        raise ValueError(f"rank {rank} is not one of 0 to {size - 1}")
    keys = {each: f"here/{each}" for each in range(size)}
    store.set(keys[rank], "")
    try:
        if rank == 0:
            if _all_come(store, keys, deadline, arrived, called_off):
                store.set(ALL_HERE, "")
                return
            store.set(ALL_HERE, CALLED_OFF)
        else:
            store.wait([ALL_HERE], time_left(deadline))
            if store.get(ALL_HERE) != CALLED_OFF:
                return
        raise group_fault(
            rendezvous, rank, "rank 0 gave up waiting for all to come", "The learner forms the next generation"
        )
    except RuntimeError as fault:
        if not ran_out_of_time(fault):
            raise
        missing = [str(each) for each, key in keys.items() if not store.check([key])]
        who = f"rank {' and rank '.join(missing)} did not come" if missing else "rank 0 did not let them in"
        raise group_fault(
            rendezvous,
            rank,
            f"not all {size} members met in time: {who}",
            "Look for a member that ended or cannot reach this address; the learner forms the next generation",
        ) from fault


def _all_come(
    store: Any,
    keys: dict[int, str],
    deadline: Deadline,
    arrived: Callable[[int], None],
    called_off: Callable[[], bool],
) -> bool:
    """Look for the keys of the others until all are there; False if the meeting was called off. See `meet`."""
    missing = dict(keys)
    while True:
        for rank, key in list(missing.items()):
            if store.check([key]):
                del missing[rank]
                arrived(rank)
        if not missing:
            return True
        if called_off():
            return False
        try:
            deadline.remaining_s()
        except DeadlineExceeded as late:
            raise RuntimeError(f"timeout: {late}") from late
        sleep(LOOK_EVERY_S)


def group_fault(
    rendezvous: Rendezvous, rank: int, what: str, next_action: str, fault: Exception | None = None
) -> WeightSyncError:
    """What went wrong for one member of a generation. fault: what torch says of it."""
    cause = f": {str(fault).splitlines()[0].split(' This is typically')[0].rstrip('.!')}" if fault else ""
    return WeightSyncError(
        f"generation {rendezvous.pg_generation}, rank {rank} of {rendezvous.size} ({rendezvous.backend}, "
        f"store {rendezvous.host}:{rendezvous.port}): {what}{cause}. {next_action}"
    )


def time_left(deadline: Deadline) -> timedelta:
    """Time until the deadline, as torch wants it. Raises DeadlineExceeded."""
    return timedelta(seconds=deadline.remaining_s())


def ran_out_of_time(fault: Exception) -> bool:
    """Whether a deadline passed, as opposed to a failure at once. The backends have no exception of their own for it."""
    return bool(re.search(r"time(d )?-?out", str(fault), re.IGNORECASE))
