"""Does a transfer that waits for a late member stop what other threads do on the card?"""

import contextlib
import os
import threading
import time
from datetime import timedelta

import torch

from benchmarks.gpu.card import Card, row
from benchmarks.gpu.groups import Mark, default_group, rendezvous, within
from services.weights.collective import Collective, form_collective
from services.weights.process_group import BroadcastGroup, RendezvousStore


def streams(card: Card, _: str) -> None:  # noqa: PLR0915
    """A loop of matrix products on the default stream, while a thread's broadcast waits 2 s for a member that is late.

    All times are seconds after the thread began: when the stall in front of NCCL's stream was given to the card and when it
    ended there, when the broadcast was called and returned; and the longest wait of the loop with the time it ended.
    """
    default_group(card)
    late_s = 0.1 if card.cpu else 2.0
    formed: list[Collective] = []
    store = RendezvousStore("127.0.0.1")

    def form(*arguments: object) -> Collective:
        formed.append(form_collective(*arguments))  # type: ignore[arg-type]
        return formed[0]

    meeting = rendezvous(card, store.port, 1, 30.0)
    group = BroadcastGroup(meeting, 0, within(30.0), card.device, store.tcp_store, form)
    n = 64 if card.cpu else 4096
    a = torch.randn(n, n, device=card.device, dtype=torch.bfloat16)
    flat = torch.zeros(1 << 20, dtype=torch.uint8, device=card.device)
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
    for name, own in (("thread on the default stream", False), ("thread on its own stream", True)):
        times: dict[str, float] = {}
        done = threading.Event()
        began_s = time.monotonic()

        def late(times: dict[str, float] = times, began_s: float = began_s) -> None:
            """Gives NCCL's stream something that is behind the stall, and waits for it as the member would."""
            with contextlib.nullcontext() if card.cpu else torch.cuda.stream(torch.cuda.Stream()):
                stall(late_s)
                mark = Mark(card)
                times["stall_given_at_s"] = time.monotonic() - began_s
                formed[0].broadcast(flat, timedelta(seconds=20))
                time.sleep(0.01)
                times["stall_ended_at_s"] = mark.at_s - began_s

        def transfer(
            own: bool = own, times: dict[str, float] = times, began_s: float = began_s, done: threading.Event = done
        ) -> None:
            first = threading.Thread(target=late, args=(times, began_s))
            first.start()
            time.sleep(0.3 if not card.cpu else 0.0)
            with torch.cuda.stream(torch.cuda.Stream()) if own and not card.cpu else contextlib.nullcontext():
                times["called_at_s"] = time.monotonic() - began_s
                group.broadcast(flat, within(20.0))
                times["returned_at_s"] = time.monotonic() - began_s
            first.join()
            done.set()

        thread = threading.Thread(target=transfer)
        thread.start()
        found = loop(done, 0.0)
        thread.join()
        row(name, late_s=late_s, **found, **times)
    os._exit(0)
