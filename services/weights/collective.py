"""What carries the bytes of one generation: gloo or NCCL, made so that a member that is gone ends in an error in time.

NCCL by default ends the process, or waits for ever; gloo takes five times the deadline. In services, torch.distributed is used
here, in meeting.py and in process_group.py alone.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from services.clock import Deadline
from services.errors import InputError
from services.weights.side_stream import SideStream
from services.wire.weights import Rendezvous


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
    """Raises InputError when this host cannot use the backend or has no such device; called before anything expensive starts.

    device: where the weights will be.
    """
    bucket_device(backend, device)
    if backend == "nccl" and not dist.is_nccl_available():
        raise InputError('this build of torch has no NCCL; set weights.type = "gloo" or install the CUDA build')
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            'device = "cuda", and torch finds no GPU here: install the NVIDIA driver, or start the container with its GPUs; '
            "`ratchet doctor --device cuda` says what is here"
        )


class Collective(Protocol):
    """What a backend gives to one member of a formed group."""

    def broadcast(self, flat: Tensor, timeout: timedelta) -> None:
        """Send from rank 0 or receive; return when the bytes have moved. Raises RuntimeError after `timeout`.

        flat: nothing else is at work on it: what a GPU was to write there is written.
        """

    def abort(self) -> None:
        """End the group; a `broadcast` that waits in another thread returns or raises."""


FormCollective = Callable[[Rendezvous, int, Any, timedelta, torch.device], Collective]
"""Forms the group of a generation: rendezvous, own rank, the generation's store, time left, where the tensors lie."""


class TorchCollective:
    """A process group of torch, over gloo or NCCL."""

    def __init__(self, group: Any, device: torch.device) -> None:
        """device: where the tensors lie."""
        self._group = group
        self.side = SideStream(device)
        """What NCCL waits for, and what waits for NCCL: neither training nor sampling, whose streams are others."""

    def broadcast(self, flat: Tensor, timeout: timedelta) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        options.timeout = timeout
        with self.side.current():
            self.side.keep(flat)
            self._group.broadcast([flat], options).wait(timeout)

    def abort(self) -> None:
        self._group.abort()


def form_collective(
    rendezvous: Rendezvous, rank: int, store: Any, timeout: timedelta, device: torch.device
) -> Collective:
    """Connect to the other members. Raises ValueError for a backend that is not here, RuntimeError for the rest."""
    if rendezvous.backend == "gloo":
        return TorchCollective(dist.ProcessGroupGloo(store, rank, rendezvous.size, timeout), torch.device("cpu"))
    if rendezvous.backend != "nccl":
        raise ValueError(f'backend "{rendezvous.backend}" is neither "nccl" nor "gloo"')
    if not hasattr(dist, "ProcessGroupNCCL"):
        raise ValueError('this build of torch has no NCCL; set weights.type = "gloo" or install the CUDA build')
    with _nccl_that_raises(timeout):
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timeout
        # A communicator that is created in the background has a deadline; the blocking way waits for ever.
        options.config.blocking = 0
        collective = TorchCollective(dist.ProcessGroupNCCL(store, rank, rendezvous.size, options), device)
        with collective.side.current():
            first = torch.zeros(1, dtype=torch.uint8, device=device)
        collective.broadcast(first, timeout)  # it connects at first use
    return collective


def form_in_time(deadline: Deadline, form: Callable[[timedelta], Collective]) -> Collective:
    """What `form` returns, or its error. Raises RuntimeError, a timeout, when it has not returned at the deadline.

    gloo tries to connect to a member that is gone five times, with the whole timeout each time. So it works in a thread,
    which is left behind when it is late; a group that it forms after that is aborted.

    Waits for: the backend to connect to all members.
    Until: the deadline (deadlines.weight_join_s).
    Ended by: the last connection, the backend's error, or the deadline.
    Metric: ratchet_waiting of the publisher or the follower that joins.
    """
    outcome: Future[Collective] = Future()
    left = timedelta(seconds=deadline.remaining_s())

    def run() -> None:
        formed: Collective | None = None
        fault: Exception | None = None
        try:
            formed = form(left)
        except Exception as raised:
            fault = raised
        if outcome.set_running_or_notify_cancel():  # from here on it is too late to give up
            if formed is None:
                outcome.set_exception(fault)
            else:
                outcome.set_result(formed)
        elif formed is not None:
            formed.abort()

    threading.Thread(target=run, name="weight-group-former", daemon=True).start()
    try:
        return outcome.result(left.total_seconds())
    except TimeoutError as fault:
        if not outcome.cancel():
            return outcome.result()  # it came in the last moment
        raise RuntimeError(f"timeout after {left.total_seconds():.1f} s in the backend: a member left it") from fault


@contextmanager
def _nccl_that_raises(timeout: timedelta) -> Iterator[None]:
    """Make the death of a member an exception here; by default NCCL's watchdog would end this process.

    ProcessGroupNCCL reads these variables when it is made. The default group keeps what the operator set. A process in
    which the watchdog saw a late broadcast was ended by its default group half a minute later (torch 2.11, H200);
    with the wait that raises by itself the process lived.
    """
    ours = {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
        "TORCH_NCCL_ENABLE_MONITORING": "0",
        "TORCH_NCCL_BLOCKING_WAIT": "1",  # wait() itself times out and aborts
    }
    # The time for communicators that do not block, in seconds. torch reads it once in a process, and the default group
    # blocks unless the operator chose otherwise, and then this is set already.
    limit = "TORCH_NCCL_NONBLOCKING_TIMEOUT"
    ours[limit] = os.environ.get(limit, str(max(1, math.ceil(timeout.total_seconds()))))
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
