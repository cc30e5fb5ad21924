"""NCCL on one rank: what this group does to the process it lives in. Several ranks need several cards."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from learner.publish.kept_buckets import BucketPool
from services.clock import Deadline
from services.errors import WeightSyncError
from services.weights.buckets import digest
from services.weights.collective import Collective, TorchCollective, form_collective
from services.weights.meeting import RendezvousStore
from services.weights.process_group import BroadcastGroup
from services.weights.side_stream import Mark, SideStream
from services.wire.weights import Rendezvous

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="NCCL moves weights between CUDA devices, and none is here"
    ),
]
ROOT = Path(__file__).parents[3]


class Kept:
    """Forms collectives, and remembers the last one."""

    collective: TorchCollective

    def form(self, *arguments: Any) -> Collective:
        formed = form_collective(*arguments)
        assert isinstance(formed, TorchCollective)
        self.collective = formed
        return formed


def one_rank(generation: int = 1, kept: Kept | None = None) -> BroadcastGroup:
    store = RendezvousStore("127.0.0.1")
    meeting = Rendezvous(
        pg_generation=generation,
        backend="nccl",
        host="127.0.0.1",
        port=store.port,
        size=1,
        first_ranks={},
        timeout_s=20.0,
    )
    form = (kept or Kept()).form
    return BroadcastGroup(meeting, 0, Deadline.after(20.0, "the test"), torch.device("cuda:0"), store.tcp_store, form)


def test_one_generation_after_the_other_forms_and_moves_bytes() -> None:
    before = dict(os.environ)
    for generation in (1, 2):
        group = one_rank(generation)
        flat = torch.full((1 << 20,), generation, dtype=torch.uint8, device="cuda:0")
        torch.cuda.synchronize()
        group.broadcast(flat, Deadline.after(20.0, "the test"))
        assert flat.unique().tolist() == [generation]
        group.close()
    assert dict(os.environ) == before


def test_a_broadcast_that_an_abort_ended_raises() -> None:
    group = one_rank(kept=(kept := Kept()))
    flat = torch.zeros(1 << 20, dtype=torch.uint8, device="cuda:0")
    with kept.collective.side.current():
        torch.cuda._sleep(5_000_000_000)  # NCCL's stream waits behind it, for 2 to 4 s
    closer = threading.Timer(0.5, group.close)
    closer.start()
    with pytest.raises(WeightSyncError, match=r"closed during a broadcast|a broadcast failed"):
        group.broadcast(flat, Deadline.after(60.0, "the test"))
    closer.join()


LATE = """
    import time, torch, torch.distributed as dist
    from services.clock import Deadline
    from services.errors import WeightSyncError
    from tests.services.weights.test_process_group_gpu import Kept, one_rank
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1)  # as DeepSpeed and the engine make one
    dist.all_reduce(torch.ones(1, device="cuda:0"))
    group = one_rank(kept=(kept := Kept()))
    with kept.collective.side.current():
        torch.cuda._sleep(20_000_000_000)  # 8 to 15 s
    try:
        group.broadcast(torch.zeros(1 << 20, dtype=torch.uint8, device="cuda:0"), Deadline.after(2.0, "the test"))
    except WeightSyncError as fault:
        print("raised", flush=True)
    group.close()
    time.sleep(25)  # the default group's monitor would end the process within its heartbeat, 5 s here
    print("alive", float(torch.ones(8, device="cuda:0").sum()), flush=True)
    import os; os._exit(0)
"""


def test_a_late_broadcast_raises_and_the_process_lives() -> None:
    late = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LATE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env=os.environ | {"TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": "5"},
    )
    assert late.stdout.split() == ["raised", "alive", "8.0"], late.stderr[-4000:]
    assert late.returncode == 0


def test_a_transfer_that_waits_does_not_hold_up_the_default_stream() -> None:
    group = one_rank(kept=(kept := Kept()))
    flat = torch.zeros(1 << 20, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    group.broadcast(flat, Deadline.after(20.0, "the test"))
    with kept.collective.side.current():
        torch.cuda._sleep(2_000_000_000)  # a member that is 1 to 2 s late
    sending = threading.Thread(target=group.broadcast, args=(flat, Deadline.after(20.0, "the test")))
    sending.start()
    time.sleep(0.2)
    began_s = time.monotonic()
    ones = torch.ones(64, device="cuda:0")
    torch.cuda.current_stream().synchronize()
    assert time.monotonic() - began_s < 0.1
    assert sending.is_alive()
    sending.join()
    assert float(ones.sum()) == 64.0
    group.close()


def test_a_snapshot_is_copied_before_it_is_sent_and_the_step_after_does_not_change_it() -> None:
    weight = torch.zeros(1 << 22, device="cuda:0")
    for device, pinned in ((torch.device("cuda:0"), False), (torch.device("cpu"), True)):
        pool = BucketPool([("weight", weight.to("meta"))], 64, device, pinned=pinned)
        side = SideStream(weight.device)
        for version in range(3):
            kept, filling = pool.take()
            weight.fill_(float(version))
            torch.cuda._sleep(100_000_000)  # the copy is given to the GPU and comes later
            kept.named["weight"].copy_(weight, non_blocking=True)
            copied = Mark(weight.device)
            weight.add_(100.0)
            assert kept.hold(filling)
            copied.wait()
            expected = torch.full((1 << 22,), float(version)).view(torch.uint8)
            assert [side.digest(flat) for flat in kept.flat] == [digest(expected)]
            kept.release(arrived=True)
