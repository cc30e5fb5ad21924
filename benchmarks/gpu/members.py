"""Two ranks on one card, in two processes: a transfer, a member that is killed, and the next generation.

NCCL refuses two ranks of one host on one card, and takes processes whose NCCL_HOSTID differs for two hosts. So bytes go
through sockets, which is slow and says nothing about speed between cards.
"""

import os
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.gpu.card import Card, case, row
from benchmarks.gpu.collective import alive
from benchmarks.gpu.groups import default_group, heard, rendezvous, root, within
from services.weights.collective import Collective, form_collective
from services.weights.meeting import RendezvousStore
from services.weights.process_group import BroadcastGroup
from services.wire.weights import Rendezvous

JOIN_S, TRANSFER_S = 12.0, 8.0
START_S = 90.0
"""For a member's imports and its context on the card."""


def members(card: Card, argument: str) -> None:
    """Rank 0: four cases, and a look whether this process outlives the deaths."""
    os.environ["NCCL_HOSTID"] = "root"
    store = RendezvousStore("127.0.0.1")
    others = {generation: _start(card, store.port, generation) for generation in (1, 2, 3)}
    default_group(card)
    began_s = time.monotonic()
    flat = torch.full((_size(card),), 7, dtype=torch.uint8, device=card.device)
    groups: dict[int, BroadcastGroup] = {}

    def join(generation: int) -> None:
        store.tcp_store.set_timeout(timedelta(seconds=START_S))
        store.tcp_store.wait([f"ready/{generation}"])
        store.tcp_store.set(f"go/{generation}", "")
        groups[generation] = root(card, store, 2, JOIN_S, generation)

    def send(generation: int, times: int = 1) -> None:
        for _ in range(times):
            groups[generation].broadcast(flat, within(TRANSFER_S))

    for generation in (1, 2):
        with case("transfer"):
            raised, seconds = heard(partial(join, generation))
            row(f"join of generation {generation}", raised=raised, seconds=seconds)
            first, _ = heard(partial(send, generation))
            raised, seconds = heard(partial(send, generation))
            row("transfer", first=first, raised=raised, mib=_size(card) / 2**20, seconds=seconds)
            others[generation].kill()
            others[generation].wait()
            raised, seconds = heard(partial(send, generation, 4))
            row("a member was killed", raised=raised, after_s=seconds, deadline_s=TRANSFER_S)
            raised, seconds = heard(groups[generation].close)
            row("close", raised=raised, seconds=seconds)
    with case("a member dies at the door"):
        raised, seconds = heard(partial(join, 3))
        row("a member dies at the door", raised=raised, after_s=seconds, deadline_s=JOIN_S)
    time.sleep(0 if card.cpu else max(0.0, 60.0 - (time.monotonic() - began_s)))
    alive(card, began_s)


def _size(card: Card) -> int:
    return 1 << (16 if card.cpu else 26)


def _start(card: Card, port: int, generation: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--models", str(card.models)]
    command += ["--step", "members:member", "--argument", f"{port},{generation}", *(["--cpu"] if card.cpu else [])]
    return subprocess.Popen(command, env=os.environ | {"NCCL_HOSTID": f"member{generation}"})


def member(card: Card, argument: str) -> None:
    """Rank 1, in a process of its own. argument: port, generation; in generation 3 it dies before it connects."""
    port, generation = map(int, argument.split(","))

    def form(meeting: Rendezvous, rank: int, store: Any, timeout: timedelta, device: torch.device) -> Collective:
        if generation == 3:
            os._exit(1)
        return form_collective(meeting, rank, store, timeout, device)

    flat = torch.zeros(_size(card), dtype=torch.uint8, device=card.device)
    store = dist.TCPStore("127.0.0.1", port, wait_for_workers=False)  # type: ignore[attr-defined]
    store.set(f"ready/{generation}", "")
    store.wait([f"go/{generation}"], timedelta(seconds=2 * START_S))
    group = BroadcastGroup(rendezvous(card, port, 2, JOIN_S, generation), 1, within(JOIN_S), card.device, form=form)
    while True:
        group.broadcast(flat, within(60.0))
        row("the member received", generation=generation, values=str(flat.unique().tolist()))
