"""Weights that go out as what changed arrive bit for bit as a whole version does, whoever lacks the base, is late, or dies."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import wait

import pytest
from prometheus_client import REGISTRY

from learner.publish import weight_server
from learner.publish.snapshot import Changes, Snapshot
from services.config.weights import GlooChannel, HttpChannel
from services.errors import WeightSyncError
from services.threads import in_daemon_thread
from tests.learner.publish.control_plane import until
from tests.learner.publish.delta_member import Members, Sender, digests

GLOO = GlooChannel(delta=True)
HTTP = HttpChannel(delta=True)


@pytest.fixture(scope="module")
def pair() -> Iterator[Members]:
    """Two members that live through all tests but those that kill one."""
    members = Members()
    members.start(2)
    yield members
    members.close()


@pytest.fixture
def members() -> Iterator[Members]:
    members = Members()
    yield members
    members.close()


@pytest.fixture
def sender(request: pytest.FixtureRequest) -> Iterator[Sender]:
    sender = Sender(getattr(request, "param", GLOO))
    yield sender
    sender.close()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"ratchet_learner_{name}_total", labels) or 0.0


def everybody(_: int) -> set[str]:
    return {"a", "b"}


def nobody(_: int) -> set[str]:
    return set()


def broadcast(
    sender: Sender, members: Members, which: list[int], holding: Callable[[int], set[str]] = everybody
) -> tuple[Snapshot, Changes]:
    """Take the version of now and send it; every one of these members has it, bit for bit."""
    snapshot = sender.snapshot()
    changes = sender.base.changes(snapshot, ["a", "b"], holding)
    for number in which:
        members.tell(number, "stage", (sender.manifest(snapshot, changes), None))
    sender.send(snapshot, changes)
    assert [members.answer(number) for number in which] == [digests(sender.weights)] * len(which)
    sender.prove(snapshot)
    return snapshot, changes


def test_versions_that_go_out_as_what_changed_arrive_bit_for_bit(sender: Sender, pair: Members) -> None:
    sender.form(pair, [0, 1])
    before = counted("delta_fallbacks", reason="no_base")
    first, changes = broadcast(sender, pair, [0, 1])
    assert not any(changes.deltas)
    assert counted("delta_fallbacks", reason="no_base") == before + len(first.flat)
    for share in (0.02, 0.0, 0.3, 0.0001):
        sender.step(share)
        _, changes = broadcast(sender, pair, [0, 1])
        assert [change is not None for change in changes.deltas] == [True, True, False]  # the last one has three values
    sender.step(1.0)
    before = counted("delta_fallbacks", reason="too_much_changed")
    _, changes = broadcast(sender, pair, [0, 1])
    assert not any(changes.deltas)
    assert counted("delta_fallbacks", reason="too_much_changed") == before + len(first.flat)


def test_a_broadcast_with_a_member_that_is_known_to_lack_the_base_is_whole(sender: Sender, pair: Members) -> None:
    sender.form(pair, [0, 1])
    broadcast(sender, pair, [0, 1])
    sender.step()
    before = counted("delta_fallbacks", reason="member_without_base")
    _, changes = broadcast(sender, pair, [0, 1], lambda _: {"a"})
    assert not any(changes.deltas)
    assert counted("delta_fallbacks", reason="member_without_base") > before
    sender.step()
    assert any(broadcast(sender, pair, [0, 1])[1].deltas)


def test_a_member_that_turns_out_to_lack_the_base_fetches_it_whole_and_the_other_does_not(
    sender: Sender, pair: Members
) -> None:
    sender.form(pair, [0])
    broadcast(sender, pair, [0])
    sender.form(pair, [0, 1])  # the second holds another run's weights, or none
    sender.step()
    whole, before = counted("weight_bytes", form="whole"), counted("delta_fallbacks", reason="not_held")
    snapshot, changes = broadcast(sender, pair, [0, 1])
    lacked = [flat.numel() for flat, change in zip(snapshot.flat, changes.deltas, strict=True) if change is not None]
    assert len(lacked) == 2
    until(lambda: counted("delta_fallbacks", reason="not_held") == before + 2)
    assert counted("weight_bytes", form="whole") == whole + sum(lacked)


def test_a_base_whose_memory_went_bad_is_noticed_by_the_digest_of_the_result(sender: Sender, pair: Members) -> None:
    sender.form(pair, [0, 1])
    broadcast(sender, pair, [0, 1])
    pair.tell(1, "spoil")
    sender.step()
    before = counted("delta_fallbacks", reason="not_held")
    broadcast(sender, pair, [0, 1])
    until(lambda: counted("delta_fallbacks", reason="not_held") == before + 1)


def test_one_that_was_stopped_catches_up_alone_by_what_changed_if_it_has_missed_one_version_and_whole_if_more(
    sender: Sender, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_server, "IDLE_S", 0.0)
    members.start(2)
    sender.form(members, [0, 1])
    broadcast(sender, members, [0, 1])
    members.signal(1, signal.SIGSTOP)
    sender.form(members, [0])
    sender.step()
    broadcast(sender, members, [0])
    members.signal(1, signal.SIGCONT)
    delta, whole = counted("weight_bytes", form="delta"), counted("weight_bytes", form="whole")
    members.tell(1, "catch up", (None, sender.offer))
    assert members.answer(1) == digests(sender.weights)
    until(lambda: counted("weight_bytes", form="delta") > delta)
    assert counted("weight_bytes", form="whole") < whole + 100  # the bucket of three values
    for _ in range(2):
        sender.step()
        broadcast(sender, members, [0])
    members.tell(1, "catch up", (None, sender.offer))
    assert members.answer(1) == digests(sender.weights)
    until(lambda: counted("weight_bytes", form="whole") > whole + 1_000_000)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "stops"])
def test_a_member_that_dies_or_stops_while_what_changed_travels_leaves_the_others_able_to_go_on(
    sender: Sender, members: Members, blow: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_server, "IDLE_S", 0.0)
    members.start(2)
    sender.form(members, [0, 1])
    broadcast(sender, members, [0, 1])
    sender.step()
    snapshot = sender.snapshot()
    changes = sender.base.changes(snapshot, ["a", "b"], everybody)
    assert any(changes.deltas)
    for number in (0, 1):
        members.tell(number, "stage", (sender.manifest(snapshot, changes), None))
    members.signal(1, blow)
    sending = in_daemon_thread(lambda: sender.send_often(snapshot, changes), "sending")
    wait({sending}, 1.0)
    sender.channel.close()  # as when the lease of a member has ended; the sending is left to its deadline
    said = members.answer(0)
    assert said == digests(sender.weights) or "generation" in said
    sender.base.failed()
    snapshot.release(arrived=False)
    sender.form(members, [0])
    _, changes = broadcast(sender, members, [0])
    assert not any(changes.deltas), "after a failure everybody gets the whole"
    sender.step()
    assert any(broadcast(sender, members, [0])[1].deltas)
    if blow is signal.SIGKILL:
        assert isinstance(sending.exception(20.0), WeightSyncError)
    else:
        members.signal(1, signal.SIGCONT)
        members.answer(1)  # that it has the version before, or that its generation has gone
        members.tell(1, "catch up", (None, sender.offer))
        assert members.answer(1) == digests(sender.weights)


@pytest.mark.parametrize("sender", [HTTP], indirect=True)
def test_over_http_each_replica_fetches_what_it_needs(sender: Sender, pair: Members) -> None:
    def fetches(which: int, least: float, most: float) -> None:
        def total() -> float:
            return counted("weight_bytes", form="whole") + counted("weight_bytes", form="delta")

        before = total()
        pair.tell(which, "stage", (sender.manifest(snapshot, changes), sender.offer))
        assert pair.answer(which) == digests(sender.weights)
        until(lambda: least <= total() - before <= most)

    snapshot = sender.snapshot()
    size = sum(flat.numel() for flat in snapshot.flat)
    changes = sender.base.changes(snapshot, ["a", "b"], nobody)
    fetches(0, size, size)
    sender.prove(snapshot)
    sender.step(0.01)
    snapshot = sender.snapshot()
    changes = sender.base.changes(snapshot, ["a", "b"], lambda _: {"a"})
    fetches(0, 1, 0.1 * size)
    fetches(1, size, size)
    fetches(0, 0, 0)  # it holds all of it
