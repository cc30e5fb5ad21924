"""Generations in real processes over gloo: the root is this process, the members are others that may die."""

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from services.clock import Deadline
from services.errors import DeadlineExceeded, InputError, WeightSyncError
from services.weights.collective import Collective, bucket_device, check_backend, form_collective
from services.weights.meeting import RendezvousStore
from services.weights.process_group import BroadcastGroup, ProcessGroupChannel
from services.wire.weights import Gap, Rendezvous, WeightManifest

CPU = torch.device("cpu")
SIZE_BYTES = 5_000_000
MUCH_BYTES = 200_000_000
"""More than the buffers of a connection hold."""


def rendezvous(port: int, generation: int, size: int, timeout_s: float = 20.0) -> Rendezvous:
    return Rendezvous(
        pg_generation=generation,
        backend="gloo",
        host="127.0.0.1",
        port=port,
        size=size,
        first_ranks={},
        timeout_s=timeout_s,
    )


def manifest(generation: int) -> WeightManifest:
    return WeightManifest(
        policy_version=1, pg_generation=generation, buckets=(), probes=(), bound=Gap(1e-3, 1e-3, 1e-3)
    )


def content(value: int) -> torch.Tensor:
    return torch.full((SIZE_BYTES,), value, dtype=torch.uint8)


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds, "the test")


def member(pipe: Connection) -> None:
    """Obeys (verb, argument) and answers with what it received, or with the error's text."""
    group: BroadcastGroup | None = None
    pipe.send("started")
    while True:
        verb, argument = pipe.recv()
        try:
            if verb == "join":
                meeting, rank = argument
                if group is not None:
                    group.close()
                group = BroadcastGroup(meeting, rank, soon(meeting.timeout_s), CPU)
                pipe.send("joined")
            elif verb == "receive" and group is not None:
                flat = content(0)
                group.broadcast(flat, soon(argument))
                pipe.send(sorted(set(flat[:: SIZE_BYTES // 100].tolist())))
            elif verb == "receive much" and group is not None:
                group.broadcast(torch.zeros(MUCH_BYTES, dtype=torch.uint8), soon(argument))
            elif verb == "come and die":
                BroadcastGroup(argument, 1, soon(), CPU, form=publish_and_die)
            elif verb == "die":
                os._exit(1)
        except WeightSyncError as fault:
            pipe.send(str(fault))


def publish_and_die(meeting: Rendezvous, rank: int, store: Any, timeout: timedelta, device: torch.device) -> Collective:
    """Leaves its addresses in the store, as a member does that dies while the group forms."""
    threading.Timer(0.5, os._exit, (1,)).start()
    return form_collective(meeting, rank, store, timeout, device)


class Members:
    def __init__(self) -> None:
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []

    def start(self, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        for _ in range(count):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=member, args=(theirs,), daemon=True)
            process.start()
            self.processes.append(process)
            self.pipes.append(ours)
        for which in range(-count, 0):  # their imports are no part of the time that a test gives them
            assert self.answer(which) == "started"

    def tell(self, which: int, verb: str, argument: Any = None) -> None:
        self.pipes[which].send((verb, argument))

    def answer(self, which: int) -> Any:
        assert self.pipes[which].poll(60)
        return self.pipes[which].recv()


@pytest.fixture
def members() -> Iterator[Members]:
    started = Members()
    yield started
    for process in started.processes:
        process.kill()
        process.join()


def test_a_member_dies_and_the_others_go_on_in_the_next_generation(members: Members) -> None:
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    members.start(3)
    for which in (0, 1):
        members.tell(which, "join", (rendezvous(store.port, 1, 3), which + 1))
    channel.form(rendezvous(store.port, 1, 3), soon())
    assert [members.answer(which) for which in (0, 1)] == ["joined", "joined"]
    for which in (0, 1):
        members.tell(which, "receive", 20.0)
    channel.send(manifest(1), [content(7)], soon())
    assert [members.answer(which) for which in (0, 1)] == [[7], [7]]

    members.tell(1, "die")
    members.processes[1].join()
    members.tell(0, "receive", 3.0)
    started_s = time.monotonic()
    with pytest.raises(WeightSyncError, match=rf"generation 1, rank 0 of 3 .*127.0.0.1:{store.port}.*next generation"):
        channel.send(manifest(1), [content(8)] * 4, soon(3.0))
    assert time.monotonic() - started_s < 5.0
    channel.close()
    survivor = members.answer(0)
    assert survivor == [8] or "generation 1, rank 1 of 3" in survivor  # the bytes may have reached it before the end

    for which, rank in ((0, 1), (2, 2)):  # one that was there before, and one that comes in its place
        members.tell(which, "join", (rendezvous(store.port, 2, 3), rank))
    channel.form(rendezvous(store.port, 2, 3), soon())
    assert [members.answer(which) for which in (0, 2)] == ["joined", "joined"]
    for which in (0, 2):
        members.tell(which, "receive", 20.0)
    channel.send(manifest(2), [content(9)], soon())
    assert [members.answer(which) for which in (0, 2)] == [[9], [9]]
    channel.close()


def test_what_the_members_of_earlier_generations_have_written_is_deleted() -> None:
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    kept: list[int] = []
    for generation in range(1, 7):
        meeting, member = rendezvous(store.port, generation, 2), list[BroadcastGroup]()
        joining = threading.Thread(
            target=lambda meeting=meeting, member=member: member.append(BroadcastGroup(meeting, 1, soon(), CPU))
        )
        joining.start()
        channel.form(meeting, soon())
        joining.join()
        member[0].close()
        kept.append(store.tcp_store.num_keys())
    channel.close()
    assert kept[2] > kept[0]  # the one before, and this one
    assert kept[2:] == [kept[2]] * 4


def test_a_root_that_leaves_frees_a_member_that_waits(members: Members) -> None:
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    members.start(1)
    members.tell(0, "join", (rendezvous(store.port, 1, 2), 1))
    channel.form(rendezvous(store.port, 1, 2), soon())
    assert members.answer(0) == "joined"
    members.tell(0, "receive", 60.0)
    time.sleep(0.3)
    started_s = time.monotonic()
    channel.close()
    assert "a broadcast failed" in members.answer(0)
    assert time.monotonic() - started_s < 5.0


def test_a_root_that_leaves_after_a_member_died_frees_another_that_has_half_of_a_message(members: Members) -> None:
    """gloo alone lets it wait for its deadline."""
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    members.start(2)
    for which in (0, 1):
        members.tell(which, "join", (rendezvous(store.port, 1, 3), which + 1))
    channel.form(rendezvous(store.port, 1, 3), soon())
    assert [members.answer(which) for which in (0, 1)] == ["joined", "joined"]
    members.tell(0, "receive much", 60.0)
    time.sleep(0.5)
    members.tell(1, "die")
    members.processes[1].join()
    time.sleep(0.3)
    with pytest.raises(WeightSyncError, match="failed"):
        channel.send(manifest(1), [torch.zeros(MUCH_BYTES, dtype=torch.uint8)], soon(60.0))
    started_s = time.monotonic()
    channel.close()
    assert "a broadcast failed" in members.answer(0)
    assert time.monotonic() - started_s < 5.0


def test_a_member_that_never_comes_is_reported_when_the_deadline_is_reached() -> None:
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    started_s = time.monotonic()
    with pytest.raises(WeightSyncError, match="not all 2 members met"):
        channel.form(rendezvous(store.port, 1, 2), soon(1.0))
    assert time.monotonic() - started_s < 5.0


def test_a_meeting_is_called_off_for_all_when_a_member_dies_before_it_has_come(members: Members) -> None:
    """The publisher closes the channel when the lease of the one that died has ended."""
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    members.start(2)
    members.tell(0, "join", (rendezvous(store.port, 1, 3), 1))
    members.tell(1, "die")
    members.processes[1].join()
    came: list[int] = []
    calling_off = threading.Timer(1.0, channel.close)
    started_s = time.monotonic()
    calling_off.start()
    with pytest.raises(WeightSyncError, match="rank 0 gave up waiting for all to come"):
        channel.form(rendezvous(store.port, 1, 3), soon(), came.append)
    assert came == [0, 1]
    assert "rank 0 gave up waiting for all to come" in members.answer(0)
    assert time.monotonic() - started_s < 5.0

    members.tell(0, "join", (rendezvous(store.port, 2, 2), 1))
    channel.form(rendezvous(store.port, 2, 2), soon())
    assert members.answer(0) == "joined"
    channel.close()


def test_the_ranks_that_did_not_come_are_named(members: Members) -> None:
    store = RendezvousStore("127.0.0.1")
    members.start(1)
    members.tell(0, "join", (rendezvous(store.port, 1, 4, timeout_s=1.5), 2))
    assert "not all 4 members met in time: rank 0 and rank 1 and rank 3 did not come" in members.answer(0)
    with pytest.raises(WeightSyncError, match="not all 4 members met in time: rank 1 and rank 3 did not come"):
        BroadcastGroup(rendezvous(store.port, 1, 4), 0, soon(0.5), CPU, store.tcp_store)


def test_a_member_that_comes_after_the_root_gave_up_does_not_enter_alone() -> None:
    store = RendezvousStore("127.0.0.1")
    with pytest.raises(WeightSyncError, match="rank 1 did not come"):
        BroadcastGroup(rendezvous(store.port, 1, 2), 0, soon(0.3), CPU, store.tcp_store)

    def enter(*_: Any) -> Collective:
        raise AssertionError("it went on to the backend, where nobody is")

    with pytest.raises(WeightSyncError, match="not all 2 members met in time: rank 0 did not let them in"):
        BroadcastGroup(rendezvous(store.port, 1, 2), 1, soon(0.3), CPU, store.tcp_store, enter)


class LateCollective:
    """Its broadcast returns when it is aborted, without bytes and without an error, as NCCL's may."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.aborted = threading.Event()

    def broadcast(self, flat: torch.Tensor, timeout: timedelta) -> None:
        self.began.set()
        assert self.aborted.wait(timeout.total_seconds())

    def abort(self) -> None:
        self.aborted.set()


def test_a_broadcast_that_an_abort_ended_is_not_taken_for_done() -> None:
    store, late = RendezvousStore("127.0.0.1"), LateCollective()
    group = BroadcastGroup(rendezvous(store.port, 1, 1), 0, soon(), CPU, store.tcp_store, lambda *_: late)

    def close() -> None:
        assert late.began.wait(20)
        group.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(WeightSyncError, match="the group was closed during a broadcast"):
        group.broadcast(content(1), soon())
    closer.join()


def test_the_backend_gets_what_is_left_of_the_deadline() -> None:
    store, given = RendezvousStore("127.0.0.1"), []

    def form(meeting: Rendezvous, rank: int, _: Any, timeout: timedelta, device: torch.device) -> Collective:
        given.append((meeting.pg_generation, rank, timeout, device))
        return LateCollective()

    BroadcastGroup(rendezvous(store.port, 3, 1), 0, soon(7.0), CPU, store.tcp_store, form)
    [(generation, rank, timeout, device)] = given
    assert (generation, rank, device) == (3, 0, CPU)
    assert timedelta(0) < timeout <= timedelta(seconds=7)


def test_a_backend_that_is_late_ends_at_the_deadline_and_what_it_forms_then_is_aborted() -> None:
    store, late, go = RendezvousStore("127.0.0.1"), LateCollective(), threading.Event()

    def form(*_: Any) -> Collective:
        assert go.wait(20)
        return late

    started_s = time.monotonic()
    with pytest.raises(WeightSyncError, match=r"not all 1 members met: timeout after 0\.\d s in the backend"):
        BroadcastGroup(rendezvous(store.port, 1, 1), 0, soon(0.5), CPU, store.tcp_store, form)
    assert time.monotonic() - started_s < 5.0
    go.set()
    assert late.aborted.wait(20)


def test_a_member_that_dies_between_the_store_and_the_backend_ends_at_the_deadline(members: Members) -> None:
    """gloo alone tries for five times as long: 28 s where it was given 5."""
    store = RendezvousStore("127.0.0.1")
    members.start(1)
    members.tell(0, "come and die", rendezvous(store.port, 1, 2))

    def form(*arguments: Any) -> Collective:
        members.processes[0].join(20)
        return form_collective(*arguments)

    started_s = time.monotonic()
    with pytest.raises(WeightSyncError, match="not all 2 members met: "):
        BroadcastGroup(rendezvous(store.port, 1, 2), 0, soon(4.0), CPU, store.tcp_store, form)
    assert time.monotonic() - started_s < 8.0


def test_a_store_that_is_not_there_is_reported_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(WeightSyncError, match=rf"rank 1 of 2 \(gloo, store 127.0.0.1:{port}\)"):
        BroadcastGroup(rendezvous(port, 1, 2), 1, soon(1.0), CPU)


def test_an_occupied_port_names_the_setting() -> None:
    store = RendezvousStore("127.0.0.1")
    with pytest.raises(WeightSyncError, match=f"cannot listen on 127.0.0.1:{store.port}.*weights.port"):
        RendezvousStore("127.0.0.1", store.port)


def test_a_generation_that_was_not_formed_is_refused() -> None:
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    channel.form(rendezvous(store.port, 1, 1), soon())
    with pytest.raises(WeightSyncError, match="generation 2, but the group formed is of generation 1"):
        channel.send(manifest(2), [content(1)], soon())
    channel.close()
    channel.close()


def test_no_time_left_is_told_from_a_failure() -> None:
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"))
    with pytest.raises(DeadlineExceeded):
        channel.form(rendezvous(store.port, 1, 1), soon(0.0))


def test_a_backend_that_is_not_here_says_what_to_set() -> None:
    store = RendezvousStore("127.0.0.1")
    unknown = Rendezvous(
        pg_generation=1, backend="mpi", host="127.0.0.1", port=store.port, size=1, first_ranks={}, timeout_s=5.0
    )
    with pytest.raises(WeightSyncError, match='backend "mpi" is neither "nccl" nor "gloo"') as fault:
        BroadcastGroup(unknown, 0, soon(), CPU, store.tcp_store)
    assert "this member could not form the group" in str(fault.value)
    assert "members met" not in str(fault.value)


def test_what_goes_wrong_at_once_is_not_put_on_a_member_that_is_late() -> None:
    store = RendezvousStore("127.0.0.1")
    with pytest.raises(WeightSyncError, match="this member could not form the group: rank 5 is not one of 0 to 2"):
        BroadcastGroup(rendezvous(store.port, 1, 3), 5, soon(), CPU, store.tcp_store)


def test_buckets_lie_where_the_backend_takes_them() -> None:
    gpu = torch.device("cuda", 3)
    assert bucket_device("gloo", gpu) == bucket_device("gloo", CPU) == CPU
    assert bucket_device("nccl", gpu) == gpu
    with pytest.raises(InputError, match=r'here they lie on cpu; set device = "cuda", or weights.type = "gloo"'):
        bucket_device("nccl", CPU)


def test_a_bucket_that_lies_elsewhere_is_told_from_a_member_that_is_gone() -> None:
    channel = ProcessGroupChannel(store := RendezvousStore("127.0.0.1"), torch.device("cpu"))
    channel.form(rendezvous(store.port, 1, 1), soon())
    with pytest.raises(WeightSyncError, match="a bucket lies on meta, the group moves what is on cpu"):
        channel.send(manifest(1), [torch.empty(5, dtype=torch.uint8, device="meta")], soon())
    channel.close()


@pytest.mark.parametrize(
    ("host", "reached_elsewhere"), [("127.0.0.1", False), ("127.0.0.9", False), ("localhost", False), ("0.0.0.0", True)]
)
def test_a_store_of_one_machine_listens_on_loopback_alone(host: str, reached_elsewhere: bool) -> None:
    store = RendezvousStore(host)
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [
        socket.inet_ntoa(bytes.fromhex(address[:8])[::-1])
        for _, address, _, state, *_ in rows
        if state == "0A" and address.endswith(f":{store.port:04X}")
    ]
    assert listening == ["0.0.0.0" if reached_elsewhere else "127.0.0.1"]


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_a_host_without_a_gpu_is_named_before_anything_starts(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU image on a host without a driver, or without --gpus."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    with pytest.raises(InputError, match=r'device = "cuda", and torch finds no GPU here: .* NVIDIA driver'):
        check_backend(backend, torch.device("cuda"))
    check_backend("gloo", torch.device("cpu"))
