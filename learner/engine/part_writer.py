"""Writes this rank's part of a checkpoint, at once or on a thread while training goes on.

For the thread everything is copied to host memory first, into buffers that are kept from one checkpoint to the next: fresh
memory costs more than the copy, and on a GPU only pinned memory is copied into at full speed.
"""

import logging
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.checkpoint import make_durable
from learner.engine.state_files import Columns
from services.host_memory import available_bytes

log = logging.getLogger("ratchet.learner")

HEADROOM = 1.25
"""Host memory that has to be free for a copy, by its size: the run's other processes grow, too."""


class PartWriter:
    """One for each rank. `write`, then `is_done` until it says yes; one part at a time."""

    def __init__(self, ranks_here: int = 1) -> None:
        """ranks_here: ranks that share the memory of this host, each with a part of about the same size."""
        self._ranks_here = ranks_here
        self._host: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._fault: Exception | None = None

    def write(self, path: Path, columns: Columns, rest: dict[str, Any], *, in_background: bool) -> None:
        """Write the file; `is_done` says when it is on the disk, and what kept it from there. rest: what else is in it, on the
        CPU, and does not change.

        in_background: return once there is a copy; where memory has no room for one, it is written at once, with a warning.
        """
        if in_background and self._has_room(columns):
            self._thread = threading.Thread(
                target=self._write, args=(path, self._copied(columns), rest), name="checkpoint-writer", daemon=True
            )
            self._thread.start()
        else:
            self._write(path, columns, rest)

    def _write(self, path: Path, columns: Columns, rest: dict[str, Any]) -> None:
        try:
            torch.save({"columns": columns, **rest}, path)
            make_durable(path)
        except Exception as fault:  # raised by `is_done`, which every rank calls: nobody waits for this one
            self._fault = fault

    def _has_room(self, columns: Columns) -> bool:
        """Whether host memory has room for the copy; it is kept, so that later ones need none."""
        needed = sum(values.nbytes for place, values in _places(columns) if place not in self._host) * self._ranks_here
        free = available_bytes()
        if needed * HEADROOM <= free:
            return True
        log.warning(
            "a copy of the checkpoint takes %.1f GiB of host memory, and %.1f GiB are free: steps wait until it is written; "
            "give the host more memory, or set learner.checkpoint.background = false",
            needed / 2**30,
            free / 2**30,
        )
        return False

    def is_done(self, *, wait: bool) -> bool:
        """Whether the part is on the disk. Raises what kept it from there.

        Waits for: the thread, with `wait`.
        Until: there is no deadline; a disk that hangs hangs the checkpoint.
        Ended by: the end of the thread.
        Metric: ratchet_waiting{room="learner", awaiting="checkpoint"}.
        """
        if self._thread is not None:
            if wait:
                self._thread.join()
            if self._thread.is_alive():
                return False
            self._thread = None
        if self._fault is not None:
            fault = self._fault
            self._fault = None
            raise fault
        return True

    @torch.no_grad()
    def _copied(self, columns: Columns) -> Columns:
        copied: Columns = {}
        devices = set()
        for column, by_name in columns.items():
            copied[column] = {}
            for name, (start, values) in by_name.items():
                kept = self._kept(f"{column}/{name}", values)
                kept.copy_(values, non_blocking=True)
                devices.add(values.device)
                copied[column][name] = start, kept
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return copied

    def _kept(self, place: str, values: Tensor) -> Tensor:
        kept = self._host.get(place)
        if kept is None or kept.shape != values.shape or kept.dtype != values.dtype:
            kept = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
            self._host[place] = kept
        return kept


def _places(columns: Columns) -> list[tuple[str, Tensor]]:
    return [
        (f"{column}/{name}", values) for column, by_name in columns.items() for name, (_, values) in by_name.items()
    ]
