"""The process group of one generation: where its members meet, and the broadcast from learner rank 0 to all of them.

No backend lets a rank join a living group, and a group that lost a member is of no further use. So membership changes
by forming the next generation under a prefix of its own in the same store; nobody restarts. The only file in services
that uses torch.distributed. Groups are independent of the default group that DeepSpeed uses.
"""

import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from services.clock import Deadline
from services.errors import InputError, WeightSyncError
from services.wire.weights import Rendezvous, WeightManifest

_LOOPBACK = ("127.0.0.1", "localhost")


def bucket_device(backend: str, device: torch.device) -> torch.device:
    """Where buckets are sent from and received: NCCL takes what lies on the GPU of the weights, gloo what is on the CPU.

    device: of the weights. Raises InputError when that is no GPU and the backend needs one.
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
    """What is known before anything expensive starts. device: of the weights to come. Raises InputError."""
    bucket_device(backend, device)
    if backend == "nccl" and not dist.is_nccl_available():
        raise InputError('this build of torch has no NCCL; set weights.type = "gloo" or install the CUDA build')
    if backend == "nccl" and not torch.cuda.is_available():
        raise InputError(
            'weights.type = "nccl", and torch finds no GPU on this host; `ratchet doctor` says what is here'
        )


class RendezvousStore:
    """The key-value store on learner rank 0 through which members find each other; it outlives generations.

    On a loopback host it listens on loopback alone, otherwise on every interface: it has no authentication, so keep
    its port inside the network of the run.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        """port: 0 takes any free one; `port` then says which. Raises WeightSyncError when it cannot be bound."""
        address = "127.0.0.1" if host in _LOOPBACK else ""
        try:
            listener = socket.create_server((address, port), backlog=1024)
        except OSError as fault:
            raise WeightSyncError(
                f"the rendezvous store cannot listen on {host}:{port}: {fault}. "
                "Free the port, or set another (0: any) in weights.port"
            ) from fault
        self.host, self.port = host, int(listener.getsockname()[1])
        self.tcp_store = TCPStore(
            "127.0.0.1",
            self.port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),  # the store owns and closes it
        )


class BroadcastGroup:
    """One member's end of one generation. Every call blocks at most as long as its deadline says."""

    def __init__(
        self, rendezvous: Rendezvous, rank: int, deadline: Deadline, device: torch.device, store: Any = None
    ) -> None:
        """Meets the others. device: where broadcast tensors lie. store: given by the process that owns it.

        Raises WeightSyncError when they do not all come before the deadline, or the group cannot be formed at all.
        """
        self._rendezvous, self._rank, self._device = rendezvous, rank, device
        self._group: Any = None
        timeout = timedelta(seconds=deadline.remaining_s())
        try:
            if store is None:
                store = TCPStore(rendezvous.host, rendezvous.port, wait_for_workers=False, timeout=timeout)
            store.set_timeout(timeout)
            prefixed = PrefixStore(f"generation{rendezvous.pg_generation}", store)
            self._group = self._form(prefixed, timeout)
        except (RuntimeError, ValueError) as fault:
            if _ran_out_of_time(fault):
                raise self._fault(
                    f"not all {rendezvous.size} members met",
                    "Look for a member that ended or cannot reach this address; the learner forms the next generation",
                    fault,
                ) from fault
            raise self._fault(
                "this member could not form the group",
                "The cause is here or in what the members are made of, not in one that is late: "
                "compare versions with `ratchet doctor`",
                fault,
            ) from fault

    def _form(self, store: Any, timeout: timedelta) -> Any:
        rendezvous = self._rendezvous
        if rendezvous.backend == "gloo":
            return dist.ProcessGroupGloo(store, self._rank, rendezvous.size, timeout)
        if rendezvous.backend != "nccl":
            raise ValueError(f'backend "{rendezvous.backend}" is neither "nccl" nor "gloo"')
        if not hasattr(dist, "ProcessGroupNCCL"):
            raise ValueError('this build of torch has no NCCL; set weights.type = "gloo" or install the CUDA build')
        with _quiet_nccl_watchdog():
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            group = dist.ProcessGroupNCCL(store, self._rank, rendezvous.size, options)
        self._run(group, torch.zeros(1, dtype=torch.uint8, device=self._device), timeout)  # it connects at first use
        return group

    def broadcast(self, flat: Tensor, deadline: Deadline) -> None:
        """Sends flat from rank 0, or receives into it: uint8, contiguous, the same size everywhere.

        Raises WeightSyncError when a member is gone or late; the group is then spent.
        """
        if self._group is None:
            raise self._fault("the group is closed", "Join the next generation")
        if flat.device.type != self._device.type:
            raise self._fault(
                f"a bucket lies on {flat.device}, the group moves what is on {self._device}", "Pack it there"
            )
        timeout = timedelta(seconds=deadline.remaining_s())
        try:
            self._run(self._group, flat, timeout)
        except RuntimeError as fault:
            raise self._fault(
                f"a broadcast of {flat.numel()} bytes failed",
                "A member ended or is late; the learner forms the next generation from those that are left",
                fault,
            ) from fault

    def _run(self, group: Any, flat: Tensor, timeout: timedelta) -> None:
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor, options.timeout = 0, 0, timeout
        group.broadcast([flat], options).wait(timeout)

    def close(self) -> None:
        """Leave, also while another thread waits in broadcast: that thread then raises."""
        group, self._group = self._group, None
        if group is not None:
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
        """device: where the buckets lie (`bucket_device`); the CPU for gloo."""
        self._store, self._device = store, device or torch.device("cpu")
        self._group: BroadcastGroup | None = None
        self._generation: int | None = None

    def form(self, rendezvous: Rendezvous, deadline: Deadline) -> None:
        self.close()
        self._group = BroadcastGroup(rendezvous, 0, deadline, self._device, self._store.tcp_store)
        self._generation = rendezvous.pg_generation

    def send(self, manifest: WeightManifest, flat_buckets: Sequence[Tensor], deadline: Deadline) -> None:
        if self._group is None or self._generation != manifest.pg_generation:
            raise WeightSyncError(
                f"version {manifest.policy_version} is announced for generation {manifest.pg_generation}, "
                f"but the group formed is of generation {self._generation}; form it first"
            )
        for flat in flat_buckets:
            self._group.broadcast(flat, deadline)

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
        self._group = self._generation = None


def _ran_out_of_time(fault: Exception) -> bool:
    """Told from what went wrong at once. The backends have no exception of their own for it."""
    return bool(re.search(r"time(d )?-?out", str(fault), re.IGNORECASE))


@contextmanager
def _quiet_nccl_watchdog() -> Iterator[None]:
    """A member that dies must raise here, not end this process: NCCL's watchdog does that unless told otherwise.

    Read by ProcessGroupNCCL when it is made; the default group keeps what the operator set.
    """
    quiet = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "TORCH_NCCL_ENABLE_MONITORING": "0"}
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update(quiet)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
