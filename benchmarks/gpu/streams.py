"""Does a transfer that waits for a late member stop what other threads do on the card?"""

import os
import threading
import time

import torch

from benchmarks.gpu.card import Card, row
from benchmarks.gpu.groups import Kept, default_group, rendezvous, within
from services.weights.meeting import RendezvousStore
from services.weights.process_group import BroadcastGroup


def streams(card: Card, _: str) -> None:
    """A loop of matrix products on the default stream, while a thread's broadcast waits 2 s for a member that is late.

    The broadcast is the real one (BroadcastGroup), called as publisher and receiver call it; what it waits for is a stall on the
    collective's stream. Times are seconds after the thread began: when the broadcast was called and returned, when the stall
    ended; and the longest wait of the loop with the time it ended.
    """
    default_group(card)
    late_s = 0.1 if card.cpu else 2.0
    kept, store = Kept(), RendezvousStore("127.0.0.1")
    meeting = rendezvous(card, store.port, 1, 30.0)
    group = BroadcastGroup(meeting, 0, within(30.0), card.device, store.tcp_store, kept.form)
    n = 64 if card.cpu else 4096
    a = torch.randn(n, n, device=card.device, dtype=torch.bfloat16)
    flat = torch.zeros(1 << 20, dtype=torch.uint8, device=card.device)
    card.wait()
    group.broadcast(flat, within(20.0))
    stall = card.staller()

    def loop(until: threading.Event, least_s: float) -> dict[str, float]:
        """Products until the event is set, and for so long at least."""
        count, longest_s, began_s = 0, 0.0, time.monotonic()
        last_s = longest_at_s = began_s
        while last_s - began_s < least_s or not until.is_set():
            _ = a @ a
            if not card.cpu:
                torch.cuda.current_stream().synchronize()
            now_s = time.monotonic()
            if now_s - last_s > longest_s:
                longest_s, longest_at_s = now_s - last_s, now_s
            count, last_s = count + 1, now_s
        return {
            "products_per_s": count / (last_s - began_s),
            "longest_wait_s": longest_s,
            "longest_ends_at_s": longest_at_s - began_s,
        }

    done = threading.Event()
    done.set()
    loop(done, 0.2)
    row("undisturbed", **loop(done, 0.5 if card.cpu else 1.0))
    times: dict[str, float] = {}
    over = threading.Event()
    began_s = time.monotonic()

    def transfer() -> None:
        mark = kept.stall(card, stall, late_s)
        times["called_at_s"] = time.monotonic() - began_s
        group.broadcast(flat, within(20.0))
        times["returned_at_s"] = time.monotonic() - began_s
        time.sleep(0.01)
        times["stall_ended_at_s"] = mark.at_s - began_s
        over.set()

    thread = threading.Thread(target=transfer)
    thread.start()
    found = loop(over, 0.0)
    thread.join()
    row("beside a transfer", late_s=late_s, **found, **times)
    os._exit(0)
