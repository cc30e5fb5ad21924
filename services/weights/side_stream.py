"""A thread's own stream on a GPU: what it does there waits for nobody, and nobody waits for it.

By default every thread of a process gives its work to the same stream. A transfer that waits for a late member would then
stop the training or the sampling that goes on beside it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from services.weights.buckets import digest


class SideStream:
    """A stream of its own on a GPU; nothing on the CPU. Used by one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        """device: that of the weights."""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._host = torch.empty(0, dtype=torch.uint8)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside, this thread gives its work to the stream, and allocates from the stream's own memory."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def finish(self) -> None:
        """Return once everything given to the stream is done.

        Waits for: the GPU.
        Until: the kernels and copies are done; nobody else is awaited.
        Ended by: the last of them, or an error of the GPU.
        Metric: none; it takes milliseconds.
        """
        if self._stream is not None:
            self._stream.synchronize()

    def keep(self, tensor: Tensor) -> None:
        """Keep the memory of a tensor from other uses until what is given to the stream by then is done."""
        if self._stream is not None and tensor.is_cuda:
            tensor.record_stream(self._stream)

    def digest(self, flat: Tensor) -> str:
        """The digest of a bucket (`buckets.digest`); one on a GPU comes through one pinned host buffer that is kept."""
        if not flat.is_cuda:
            return digest(flat)
        with self.current():
            if self._host.numel() < flat.numel():
                self._host = torch.empty(flat.numel(), dtype=torch.uint8, pin_memory=True)
            bytes_here = self._host[: flat.numel()]
            bytes_here.copy_(flat, non_blocking=True)
            self.finish()
        return digest(bytes_here)


class Mark:
    """Where the current stream of a GPU stood when this was made, for another thread to wait for; nothing on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(blocking=True) if device.type == "cuda" else None
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Return once the stream has come there. Other threads go on.

        Waits for: the GPU to do what was given to it before the mark.
        Until: that is done; nobody else is awaited.
        Ended by: the last kernel or copy before the mark, or an error of the GPU.
        Metric: ratchet_waiting of the publisher or the follower that waits.
        """
        if self._event is not None:
            self._event.synchronize()
