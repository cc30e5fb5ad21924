"""What every step of the check uses: the card, its clock and memory, and rows of the table."""

import contextlib
import gc
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

R = TypeVar("R")
MARK = "ROW "
"""Begins a line of stdout that is a row; all other lines go to the log."""


def row(case: str, **values: Any) -> None:
    """Print one row of the table: what was looked at and what it said. Numbers keep four digits."""
    plain = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in values.items()}
    sys.stdout.write(f"{MARK}{json.dumps({'case': case, **plain})}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def case(name: str) -> Iterator[None]:
    """What fails in it is a row of its own; the step goes on."""
    try:
        yield
    except Exception as fault:
        traceback.print_exc()
        row(name, failed=f"{type(fault).__name__}: {fault}"[:200])
    finally:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


@dataclass(frozen=True)
class Card:
    """The device that a step runs on."""

    cpu: bool
    """No GPU: the same code, tiny and over gloo, to test the check itself."""
    models: Path
    """Folder of the random models."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.cpu else "cuda:0")

    @property
    def backend(self) -> str:
        return "gloo" if self.cpu else "nccl"

    def wait(self) -> None:
        """Until everything given to the device is done."""
        if not self.cpu:
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], R], repeat: int = 1) -> tuple[R, float]:
        """(result, seconds of the fastest of this many calls)."""
        best = math.inf
        for _ in range(repeat):
            self.wait()
            began_s = time.monotonic()
            result = work()
            self.wait()
            best = min(best, time.monotonic() - began_s)
        return result, best

    def clocked(self, work: Callable[[], R]) -> tuple[R, float]:
        """(result, seconds until `work` returns), from an idle device; what it has given to the device may go on."""
        self.wait()
        began_s = time.monotonic()
        return work(), time.monotonic() - began_s

    def forget_peak(self) -> None:
        if not self.cpu:
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float:
        """Most memory in tensors since `forget_peak`, in 10^9 bytes."""
        return 0.0 if self.cpu else torch.cuda.max_memory_allocated() / 1e9

    def staller(self) -> Callable[[float], None]:
        """A function that keeps the current stream busy for so many seconds, as far as nobody else uses the card."""
        if self.cpu:
            return lambda seconds: None
        _, took_s = self.timed(lambda: torch.cuda._sleep(200_000_000), 3)
        return lambda seconds: torch.cuda._sleep(int(200_000_000 * seconds / took_s))

    def matmul_flops(self) -> float:
        """Measured peak of bfloat16 matrix products, operations a second."""
        n = 64 if self.cpu else 8192
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        _, seconds = self.timed(lambda: [a @ b for _ in range(10)], 3)
        return 10 * 2 * n**3 / seconds
