"""The receiver against a real broadcast group whose root is this process."""

import threading
import time
from collections.abc import Iterator
from functools import partial

import msgspec
import pytest
import torch

from rollout.weights.receiver import TransferProgress, WeightReceiver
from services.clock import Deadline
from services.errors import WeightSyncError
from services.threads import in_daemon_thread
from services.weights import delta, side_stream
from services.weights.buckets import allocate, digest, pack
from services.weights.meeting import RendezvousStore
from services.weights.process_group import BroadcastGroup, ProcessGroupChannel
from services.wire.weights import Bucket, Delta, Gap, Rendezvous, WeightManifest


def soon() -> Deadline:
    return Deadline.after(20.0, "the test")


class Learner:
    def __init__(self) -> None:
        self.store = RendezvousStore("127.0.0.1")
        self.channel = ProcessGroupChannel(self.store)

    def rendezvous(self, generation: int) -> Rendezvous:
        return Rendezvous(
            pg_generation=generation,
            backend="gloo",
            host="127.0.0.1",
            port=self.store.port,
            size=2,
            first_ranks={},
            timeout_s=20.0,
        )

    def meet(self, receiver: WeightReceiver, generation: int) -> None:
        rendezvous = self.rendezvous(generation)
        receiver.join(rendezvous, 1)
        self.channel.form(rendezvous, soon())
        assert settled(receiver).state == "ready"

    def manifest(self, version: int, generation: int, value: float) -> tuple[WeightManifest, list[torch.Tensor]]:
        packed = pack([("a", torch.full((2**18,), value)), ("b", torch.full((5,), value))], bucket_mib=1)
        manifest = WeightManifest(
            policy_version=version,
            pg_generation=generation,
            buckets=tuple(bucket for bucket, _ in packed),
            probes=(),
            bound=Gap(1e-3, 1e-3, 1e-3),
        )
        return manifest, [flat for _, flat in packed]


def settled(receiver: WeightReceiver) -> TransferProgress:
    ends_s = time.monotonic() + 20
    while receiver.progress().state == "busy" and time.monotonic() < ends_s:
        time.sleep(0.005)
    return receiver.progress()


@pytest.fixture
def learner() -> Iterator[Learner]:
    made = Learner()
    yield made
    made.channel.close()


@pytest.fixture
def receiver() -> Iterator[WeightReceiver]:
    made = WeightReceiver(torch.device("cpu"))
    yield made
    made.close()


def test_each_version_is_handed_out_once_and_whole(learner: Learner, receiver: WeightReceiver) -> None:
    learner.meet(receiver, 1)
    for version in (1, 2, 3):
        manifest, flat_buckets = learner.manifest(version, 1, float(version))
        receiver.stage(manifest, 20.0)
        learner.channel.send(manifest, flat_buckets, soon())
        assert settled(receiver).state == "ready"
        with pytest.raises(WeightSyncError, match="version 9 is not staged"):
            receiver.take(9)
        taken = dict(receiver.take(version).named())
        assert sorted(taken) == ["a", "b"]
        assert all(bool((tensor == version).all()) for tensor in taken.values())
        with pytest.raises(WeightSyncError, match=f"version {version} is not staged"):
            receiver.take(version)


def test_memory_is_used_again_once_it_was_given_back_and_not_before(learner: Learner, receiver: WeightReceiver) -> None:
    learner.meet(receiver, 1)
    places = []
    kept: list[torch.Tensor] = []
    for version in range(6):
        manifest, flat_buckets = learner.manifest(version, 1, float(version))
        receiver.stage(manifest, 20.0)
        learner.channel.send(manifest, flat_buckets, soon())
        assert settled(receiver).state == "ready"
        taken = dict(receiver.take(version).named())
        kept.append(taken["a"])  # as an engine that is still reading
        places.append(taken["a"].data_ptr())
        if version >= 2:
            receiver.give_back()
    assert len(set(places[:3])) == 3
    assert len(set(places[2:])) == 1
    assert [float(tensor[0]) for tensor in kept[:2]] == [0.0, 1.0]


def test_a_transfer_that_was_given_up_keeps_its_memory(learner: Learner, receiver: WeightReceiver) -> None:
    """It may go on writing in its thread until its own deadline."""
    taken_memory: list[torch.Tensor] = []

    def allocating(buckets: tuple[Bucket, ...], device: torch.device, *, pinned: bool) -> list[torch.Tensor]:
        made = allocate(buckets, device, pinned=pinned)
        taken_memory.extend(made)
        return made

    receiver = WeightReceiver(torch.device("cpu"), allocating)
    learner.meet(receiver, 1)
    manifest, _ = learner.manifest(1, 1, 1.0)
    receiver.stage(manifest, 20.0)
    while len(taken_memory) < 2:
        time.sleep(0.005)
    learner.meet(receiver, 2)  # the first transfer is left behind
    manifest, flat_buckets = learner.manifest(1, 2, 5.0)
    receiver.stage(manifest, 20.0)
    learner.channel.send(manifest, flat_buckets, soon())
    assert settled(receiver).state == "ready"
    own = {tensor.untyped_storage().data_ptr() for _, tensor in receiver.take(1).named()}
    assert not own & {flat.data_ptr() for flat in taken_memory[:2]}
    receiver.close()


def test_no_memory_for_a_version_says_which_setting_leaves_more(learner: Learner) -> None:
    def full(*_: object, **__: object) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    receiver = WeightReceiver(torch.device("cpu"), full)
    learner.meet(receiver, 1)
    manifest, _ = learner.manifest(1, 1, 1.0)
    receiver.stage(manifest, 20.0)
    progress = settled(receiver)
    assert progress.state == "out of memory"
    assert "Tried to allocate 2.00 GiB. Lower rollout.gpu_memory_fraction" in progress.fault
    receiver.close()


def test_a_bucket_is_proven_while_the_next_one_comes(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: list[torch.Tensor] = []
    overlapped: list[bool] = []

    def allocating(buckets: tuple[Bucket, ...], device: torch.device, *, pinned: bool) -> list[torch.Tensor]:
        memory.extend(flat.zero_() for flat in allocate(buckets, device, pinned=pinned))
        return memory

    def patient(flat: torch.Tensor) -> str:
        """The digest of the first bucket, once the second has come."""
        if flat is memory[0]:
            ends_s = time.monotonic() + 10
            while not memory[1].any() and time.monotonic() < ends_s:
                time.sleep(0.005)
            overlapped.append(bool(memory[1].any()))
        return digest(flat)

    monkeypatch.setattr(side_stream, "digest", patient)
    receiver = WeightReceiver(torch.device("cpu"), allocating)
    learner.meet(receiver, 1)
    manifest, flats = learner.manifest(3, 1, 7.0)
    assert len(flats) == 2
    receiver.stage(manifest, 20.0)
    learner.channel.send(manifest, flats, soon())
    assert settled(receiver).state == "ready"
    assert overlapped == [True]
    receiver.close()


def test_all_buckets_of_a_generation_are_received_in_one_thread(learner: Learner) -> None:
    """A thread that has moved bytes over gloo leaves some memory behind: 260 MB in a week with a thread for each."""
    meeting, threads = learner.rendezvous(1), list[int]()
    joining = in_daemon_thread(lambda: BroadcastGroup(meeting, 1, soon(), torch.device("cpu")), "member")
    learner.channel.form(meeting, soon())
    member = joining.result(20)
    for version in (1, 2, 3):
        manifest, flats = learner.manifest(version, 1, float(version))
        sending = in_daemon_thread(partial(learner.channel.send, manifest, flats, soon()), "sending")
        came = [torch.empty_like(flat) for flat in flats]

        def place(number: int, came: list[torch.Tensor] = came) -> torch.Tensor:
            threads.append(threading.get_ident())
            return came[number]

        assert list(member.receive(len(flats), place, soon())) == [0, 1]
        sending.result(20)
        assert all(map(torch.equal, came, flats))
    assert len(threads) == 6
    assert len(set(threads)) == 1
    member.close()


def test_nothing_is_handed_out_before_it_is_proven(learner: Learner, receiver: WeightReceiver) -> None:
    learner.meet(receiver, 1)
    manifest, flat_buckets = learner.manifest(1, 1, 1.0)
    receiver.stage(manifest, 20.0)
    assert receiver.progress().state == "busy"
    with pytest.raises(WeightSyncError, match="not staged"):
        receiver.take(1)
    with pytest.raises(WeightSyncError, match="still under way"):
        receiver.stage(manifest, 20.0)
    flat_buckets[0][0] ^= 1
    learner.channel.send(manifest, flat_buckets, soon())  # ends: the receiver takes what follows the damaged bucket too
    progress = settled(receiver)
    assert (progress.state, "bucket 1 of 2" in progress.fault) == ("failed", True)
    with pytest.raises(WeightSyncError, match="not staged"):
        receiver.take(1)


def test_the_next_generation_interrupts_a_transfer_and_takes_its_place(
    learner: Learner, receiver: WeightReceiver
) -> None:
    learner.meet(receiver, 1)
    manifest, _ = learner.manifest(1, 1, 1.0)
    receiver.stage(manifest, 20.0)
    learner.meet(receiver, 2)  # the learner never sent
    manifest, flat_buckets = learner.manifest(1, 2, 5.0)
    receiver.stage(manifest, 20.0)
    learner.channel.send(manifest, flat_buckets, soon())
    assert settled(receiver).state == "ready"
    assert dict(receiver.take(1).named())["b"].tolist() == [5.0] * 5
    ends_s = time.monotonic() + 10
    while sum(thread.name == "weight-receiver" for thread in threading.enumerate()) and time.monotonic() < ends_s:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == "weight-receiver"]


def test_a_manifest_of_another_generation_is_refused(learner: Learner, receiver: WeightReceiver) -> None:
    manifest, _ = learner.manifest(4, 3, 1.0)
    with pytest.raises(WeightSyncError, match="version 4 comes with generation 3, this worker is in generation None"):
        receiver.stage(manifest, 20.0)


def test_a_version_is_prepared_once_it_is_proven_and_one_that_is_damaged_is_not(learner: Learner) -> None:
    prepared: list[float] = []

    def prepare(weights: Iterator[tuple[str, torch.Tensor]]) -> bool:
        prepared.append(float(dict(weights)["a"][0]))
        return len(prepared) > 1

    receiver = WeightReceiver(torch.device("cpu"), prepare=prepare)
    learner.meet(receiver, 1)
    for version in (1, 2):
        manifest, flat_buckets = learner.manifest(version, 1, float(version))
        receiver.stage(manifest, 20.0)
        learner.channel.send(manifest, flat_buckets, soon())
        assert settled(receiver).state == "ready"
        assert receiver.take(version).is_prepared == (version == 2)
        receiver.give_back()
    manifest, flat_buckets = learner.manifest(3, 1, 3.0)
    flat_buckets[0][0] ^= 1
    receiver.stage(manifest, 20.0)
    learner.channel.send(manifest, flat_buckets, soon())
    assert settled(receiver).state == "failed"
    assert prepared == [1.0, 2.0]
    receiver.close()


def test_a_version_that_was_given_up_while_it_was_prepared_is_not_handed_out_and_the_next_is_prepared_after_it(
    learner: Learner,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    running: list[int] = []
    most = [0]

    def prepare(weights: Iterator[tuple[str, torch.Tensor]]) -> bool:
        running.append(1)
        most[0] = max(most[0], len(running))
        begun.set()
        assert go_on.wait(20)
        running.pop()
        return True

    receiver = WeightReceiver(torch.device("cpu"), prepare=prepare)
    learner.meet(receiver, 1)
    manifest, flat_buckets = learner.manifest(1, 1, 1.0)
    receiver.stage(manifest, 20.0)
    learner.channel.send(manifest, flat_buckets, soon())
    assert begun.wait(20)
    learner.meet(receiver, 2)
    manifest, flat_buckets = learner.manifest(2, 2, 2.0)
    receiver.stage(manifest, 20.0)
    learner.channel.send(manifest, flat_buckets, soon())
    assert receiver.progress().state == "busy"
    go_on.set()
    assert settled(receiver).state == "ready"
    with pytest.raises(WeightSyncError, match="version 1 is not staged"):
        receiver.take(1)
    assert receiver.take(2).is_prepared
    assert most == [1]
    receiver.close()


def changed(manifest: WeightManifest, before: list[torch.Tensor], now: list[torch.Tensor]) -> list[torch.Tensor]:
    """What travels in place of these buckets."""
    pairs = zip(manifest.buckets, before, now, strict=True)
    encoded = [delta.encode(old, new, delta.unit_bytes(bucket)) for bucket, old, new in pairs]
    return [new if change is None else change for change, new in zip(encoded, now, strict=True)]


def with_deltas(manifest: WeightManifest, before: WeightManifest, travelling: list[torch.Tensor]) -> WeightManifest:
    deltas = tuple(
        None if flat.numel() == bucket.size_bytes else Delta(old.digest, flat.numel(), digest(flat))
        for flat, bucket, old in zip(travelling, manifest.buckets, before.buckets, strict=True)
    )
    return msgspec.structs.replace(manifest, deltas=deltas)


def three(
    learner: Learner, version: int, generation: int, changed_values: int
) -> tuple[WeightManifest, list[torch.Tensor]]:
    """Three buckets, in each of which this many values differ from those of zero."""
    tensors = [(name, torch.zeros(2**18)) for name in "abc"]
    for _, tensor in tensors:
        tensor[:changed_values] = float(version)
    packed = pack(tensors, bucket_mib=1)
    manifest, _ = learner.manifest(version, generation, 0.0)
    return msgspec.structs.replace(manifest, buckets=tuple(bucket for bucket, _ in packed)), [f for _, f in packed]


def test_a_root_that_leaves_between_two_buckets_leaves_the_base_and_what_has_come(
    learner: Learner, receiver: WeightReceiver
) -> None:
    """The next generation goes on from there: the manifest names no source, so that nothing else could."""
    learner.meet(receiver, 1)
    first, before = three(learner, 1, 1, 0)
    receiver.stage(first, 20.0)
    learner.channel.send(first, before, soon())
    assert settled(receiver).state == "ready"
    receiver.take(1)
    receiver.give_back()

    second, now = three(learner, 2, 1, 50)
    travelling = changed(second, before, now)
    assert max(flat.numel() for flat in travelling) < 1000
    announced = with_deltas(second, first, travelling)
    receiver.stage(announced, 20.0)
    learner.channel.send(announced, travelling[:1], soon())
    learner.channel.close()
    assert settled(receiver).state == "failed"

    learner.meet(receiver, 2)
    announced = msgspec.structs.replace(announced, pg_generation=2)
    receiver.stage(announced, 20.0)
    learner.channel.send(announced, travelling, soon())
    assert settled(receiver).state == "ready", settled(receiver).fault
    for tensor in dict(receiver.take(2).named()).values():
        assert tensor[:51].tolist() == [2.0] * 50 + [0.0]


def test_what_changed_is_damaged_on_the_way_and_the_base_stays(learner: Learner, receiver: WeightReceiver) -> None:
    learner.meet(receiver, 1)
    first, before = three(learner, 1, 1, 0)
    receiver.stage(first, 20.0)
    learner.channel.send(first, before, soon())
    assert settled(receiver).state == "ready"
    second, now = three(learner, 2, 1, 50)
    travelling = changed(second, before, now)
    announced = with_deltas(second, first, travelling)
    damaged = [flat.clone() for flat in travelling]
    damaged[1][-1] ^= 1
    receiver.stage(announced, 20.0)
    learner.channel.send(announced, damaged, soon())
    progress = settled(receiver)
    assert (progress.state, "what changed in bucket 2 of 3" in progress.fault) == ("failed", True)
    learner.meet(receiver, 2)
    announced = msgspec.structs.replace(announced, pg_generation=2)
    receiver.stage(announced, 20.0)
    learner.channel.send(announced, travelling, soon())
    assert settled(receiver).state == "ready", settled(receiver).fault


def test_what_changed_is_of_no_use_without_its_base_and_a_place_to_fetch_from(
    learner: Learner, receiver: WeightReceiver
) -> None:
    learner.meet(receiver, 1)
    first, before = three(learner, 1, 1, 0)
    second, now = three(learner, 2, 1, 50)
    travelling = changed(second, before, now)
    receiver.stage(announced := with_deltas(second, first, travelling), 20.0)
    learner.channel.send(announced, travelling, soon())
    assert "nothing says where it can be fetched whole" in settled(receiver).fault
