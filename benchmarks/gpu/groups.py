"""Groups of the weights for the check, and a default group beside them as DeepSpeed and the engine make one."""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.gpu.card import Card
from services.clock import Deadline
from services.weights.collective import Collective, FormCollective, TorchCollective, form_collective
from services.weights.meeting import RendezvousStore
from services.weights.process_group import BroadcastGroup
from services.wire.weights import Rendezvous


def default_group(card: Card) -> None:
    """The watched process group of the process, with one rank and one operation behind it."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    dist.init_process_group(card.backend, store=store, rank=0, world_size=1)
    dist.all_reduce(torch.ones(1, device=card.device))
    card.wait()


def rendezvous(card: Card, port: int, size: int, seconds: float, generation: int = 1) -> Rendezvous:
    return Rendezvous(
        pg_generation=generation,
        backend=card.backend,
        host="127.0.0.1",
        port=port,
        size=size,
        first_ranks={},
        timeout_s=seconds,
    )


def within(seconds: float) -> Deadline:
    return Deadline.after(seconds, "the check")


def root(
    card: Card,
    store: RendezvousStore,
    size: int,
    seconds: float,
    generation: int = 1,
    form: FormCollective = form_collective,
) -> BroadcastGroup:
    """Rank 0 of a group that has so many seconds to form."""
    meeting = rendezvous(card, store.port, size, seconds, generation)
    return BroadcastGroup(meeting, 0, within(seconds), card.device, store.tcp_store, form)


class Kept:
    """Forms collectives as `form_collective` does, and remembers the last one."""

    def __init__(self) -> None:
        self.collective: TorchCollective | None = None

    def form(self, *arguments: Any) -> Collective:
        formed = form_collective(*arguments)
        assert isinstance(formed, TorchCollective)
        self.collective = formed
        return formed

    def stall(self, card: Card, stall: Callable[[float], None], seconds: float) -> "Mark":
        """Keep the collective's stream busy for so long, as a member that is late does. Returns when that ended."""
        assert self.collective is not None
        with self.collective.side.current():
            stall(seconds)
            return Mark(card)


def heard(work: Callable[[], object]) -> tuple[str, float]:
    """(what it raised, or "nothing"; seconds until then)."""
    began_s = time.monotonic()
    try:
        work()
    except Exception as fault:
        return f"{type(fault).__name__}: {fault}"[:240], time.monotonic() - began_s
    return "nothing", time.monotonic() - began_s


class Mark:
    """When the current stream came to where it was made, on the host's clock; read by a thread every 2 ms."""

    def __init__(self, card: Card) -> None:
        self.at_s = time.monotonic()
        if not card.cpu:
            event = torch.cuda.Event()
            event.record()
            threading.Thread(target=self._watch, args=(event,), daemon=True).start()

    def _watch(self, event: torch.cuda.Event) -> None:
        self.at_s = float("nan")
        while not event.query():
            time.sleep(0.002)
        self.at_s = time.monotonic()
