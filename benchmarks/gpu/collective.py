"""Does a late broadcast end the process, and does a join that lacks a member end in time?"""

import contextlib
import os
import threading
import time
from typing import Any

import torch

from benchmarks.gpu.card import Card, row
from benchmarks.gpu.groups import Kept, default_group, heard, rendezvous, root, within
from services.errors import RatchetError
from services.weights.collective import Collective
from services.weights.meeting import RendezvousStore
from services.weights.process_group import BroadcastGroup


def watchdog(card: Card, _: str) -> None:
    """A broadcast that waits behind a stall of 20 s, with a deadline of 8 s; then a look whether the process lives.

    The stall is a kernel that nothing can end, so the abort of NCCL may have to wait for it: `late_s` is the time from the
    deadline to the error, `after_stall_s` from the end of the stall (below 0: raised while it lasted).
    """
    stall_s, observe_s = (0.0, 1.0) if card.cpu else (20.0, 65.0)
    default_group(card)
    kept = Kept()
    group = root(card, RendezvousStore("127.0.0.1"), 1, 10.0, form=kept.form)
    flat = torch.zeros(1 << 20, dtype=torch.uint8, device=card.device)
    group.broadcast(flat, within(5.0))
    stall = card.staller()
    began_s = time.monotonic()
    mark = kept.stall(card, stall, stall_s)
    raised, after_s = heard(lambda: group.broadcast(flat, within(8.0)))
    raised_s = time.monotonic()
    card.wait()
    time.sleep(0.01)
    row("broadcast", raised=raised, after_s=after_s, late_s=after_s - 8.0, after_stall_s=raised_s - mark.at_s)
    _, close_s = heard(group.close)
    row("close", seconds=close_s)
    time.sleep(max(0.0, observe_s - (time.monotonic() - began_s)))
    alive(card, began_s)


def alive(card: Card, began_s: float) -> None:
    """The last row of a process that was watched; it then ends without destructors."""
    row("alive", after_s=time.monotonic() - began_s, card_works=float(torch.ones(8, device=card.device).sum()) == 8.0)
    os._exit(0)


def absent(card: Card, _: str) -> None:
    """A member that never comes, then one that comes to the store and never enters the backend: deadline 4 s each."""
    if not card.cpu:
        default_group(card)
    threading.Thread(target=_hangs, daemon=True).start()
    store = RendezvousStore("127.0.0.1")
    raised, after_s = heard(lambda: root(card, store, 2, 4.0, generation=1))
    row("never came", raised=raised, after_s=after_s)

    def leave(*_: Any) -> Collective:
        raise ValueError("this member leaves before it enters the backend")

    def other() -> None:
        with contextlib.suppress(RatchetError):
            BroadcastGroup(rendezvous(card, store.port, 2, 20.0, 2), 1, within(20.0), card.device, form=leave)

    threading.Thread(target=other, daemon=True).start()
    raised, after_s = heard(lambda: root(card, store, 2, 4.0, generation=2))
    row("left at the door", raised=raised, after_s=after_s)
    raised, after_s = heard(lambda: root(card, store, 1, 10.0, generation=3))
    row("the next generation, alone", raised=raised, after_s=after_s)
    os._exit(0)


def _hangs() -> None:
    time.sleep(45)
    row("HANGS", after_s=45.0)
    os._exit(3)
