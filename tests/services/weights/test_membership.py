"""Leases, generations and messages, on a real server."""

import logging
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from services.command.redis_server import RedisServer
from services.streams.redis_connection import RedisConnection, ServerFull
from services.weights.membership import Membership
from services.wire.codec import encode
from services.wire.membership import Confirmation, Lease
from services.wire.weights import Gap, Probe, Rendezvous, WeightManifest, WeightOffer, WeightSource

RENDEZVOUS = Rendezvous(pg_generation=1, backend="gloo", host="h", port=1, size=2, first_ranks={"a": 1}, timeout_s=5.0)
OFFER = WeightOffer(
    learner="l", source=WeightSource("http://h:1", "t"), policy_version=3, pg_generation=1, alone={"a": "1"}
)
MANIFEST = WeightManifest(
    policy_version=3, pg_generation=1, buckets=(), probes=(Probe((1, 2), (-0.5,)),), bound=Gap(1e-3, 1e-3, 1e-3)
)


def lease(replica_id: str, *, ready: bool = True) -> Lease:
    return Lease(
        replica_id=replica_id, incarnation="1", ranks=1, policy_version=0, ready=ready, sampling_s=0.0, ready_s=0.0
    )


def confirmation(replica_id: str) -> Confirmation:
    return Confirmation(replica_id=replica_id, incarnation="1", phase="joined", pg_generation=1, policy_version=3)


@pytest.fixture
def run() -> str:
    return f"run-{uuid.uuid4().hex}"


@pytest.fixture
def membership(redis_connection: RedisConnection, run: str) -> Membership:
    return Membership(redis_connection, run, lease_s=30.0)


def test_a_replica_is_live_from_registering_until_it_leaves(membership: Membership) -> None:
    assert membership.live() == {}
    membership.register(lease("a"))
    membership.register(lease("b", ready=False))
    assert membership.live() == {"a": lease("a"), "b": lease("b", ready=False)}
    membership.register(lease("b"))
    membership.leave("a")
    assert membership.live() == {"b": lease("b")}


def test_everything_is_written_on_a_server_whose_memory_is_full(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        connection = RedisConnection(server.url, deadline_s=5.0)
        membership = Membership(connection, "full", lease_s=30.0)
        announced, confirmed = membership.announcements(), membership.confirmations()
        connection.execute("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(ServerFull):
            connection.execute("SET", "other", "data")
        for _ in range(2):
            membership.register(lease("a"))
        assert membership.live() == {"a": lease("a")}
        assert (membership.next_generation(above=6), membership.next_attempt()) == (7, 1)
        membership.offer(OFFER)
        membership.announce(RENDEZVOUS)
        membership.confirm(confirmation("a"))
        assert membership.offered() == OFFER
        assert list(announced.read(1.0)) == [RENDEZVOUS]
        assert list(confirmed.read(1.0)) == [confirmation("a")]
        connection.close()


def test_a_lease_that_is_not_renewed_runs_out_and_its_last_words_stay(
    redis_connection: RedisConnection, run: str
) -> None:
    membership = Membership(redis_connection, run, lease_s=1.0)
    membership.register(lease("a"))
    assert list(membership.live()) == ["a"]
    time.sleep(1.1)
    assert membership.live() == {}
    assert membership.last_leases() == [lease("a")]


def test_a_replica_of_another_version_is_named_once_and_left_out(
    membership: Membership, redis_connection: RedisConnection, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    membership.register(lease("a"))
    membership.register(lease("old"))
    redis_connection.execute("HSET", f"ratchet:{run}:replicas", "old", msgspec.msgpack.encode(("lease", 1, {})))
    with caplog.at_level(logging.WARNING, "ratchet"):
        assert list(membership.live()) == ["a"]
        assert list(membership.live()) == ["a"]
    assert caplog.text.count("the lease of replica old is ignored") == 1


def test_generations_and_attempts_are_counted_apart(membership: Membership) -> None:
    assert [membership.next_generation(), membership.next_generation()] == [1, 2]
    assert membership.next_attempt() == 1


def test_a_reader_gets_what_comes_after_it_was_made(membership: Membership) -> None:
    membership.announce(RENDEZVOUS)
    reader = membership.announcements()
    assert list(reader.read(0.01)) == []
    membership.announce(MANIFEST)
    membership.announce(RENDEZVOUS)
    assert list(reader.read(0.01)) == [MANIFEST, RENDEZVOUS]
    assert list(reader.read(0.01)) == []


def test_a_fleet_that_answers_at_once_is_heard_whole(membership: Membership) -> None:
    reader = membership.confirmations()
    names = [f"rollout-{number}" for number in range(1000)]
    for name in names:
        membership.confirm(confirmation(name))
    heard: list[str] = []
    while len(heard) < len(names) and (messages := list(reader.read(0.1))):
        heard += [message.replica_id for message in messages if isinstance(message, Confirmation)]
    assert heard == names


def test_announcements_and_confirmations_do_not_mix(membership: Membership) -> None:
    announced, confirmed = membership.announcements(), membership.confirmations()
    membership.announce(MANIFEST)
    membership.confirm(confirmation("a"))
    assert list(announced.read(0.01)) == [MANIFEST]
    assert list(confirmed.read(0.01)) == [confirmation("a")]


def test_a_replica_is_lost_when_its_lease_ends_or_another_start_of_it_registers(
    redis_connection: RedisConnection, run: str
) -> None:
    membership = Membership(redis_connection, run, lease_s=1.0)
    for name in ("silent", "again", "left", "there"):
        membership.register(lease(name))
    assert membership.lost({"silent": "1", "again": "1"}) == set()
    time.sleep(1.1)
    membership = Membership(redis_connection, run, lease_s=30.0)
    membership.register(lease("there"))
    membership.register(msgspec.structs.replace(lease("again"), incarnation="2"))
    membership.leave("left")
    asked = {"silent": "1", "again": "1", "left": "1", "there": "1", "never seen": "1"}
    assert membership.lost(asked) == {"silent", "again", "left"}


def test_a_lease_that_ends_soon_was_not_renewed_in_time(membership: Membership) -> None:
    membership.register(lease("a"))
    assert membership.lost({"a": "1"}, left_s=29.0) == set()
    assert membership.lost({"a": "1"}, left_s=30.1) == {"a"}


def test_a_lease_from_before_the_clock_of_the_server_was_set_back_ends_a_lease_after_the_next_look(
    redis_connection: RedisConnection, run: str
) -> None:
    brief, membership = (Membership(redis_connection, run, lease_s=lease_s) for lease_s in (0.2, 30.0))
    for name in ("dead", "renews"):
        membership.register(lease(name))
        later = "return redis.call('ZINCRBY', KEYS[1], 3600000, ARGV[1])"
        redis_connection.run_script(later, [f"ratchet:{run}:leases"], [name])
    assert set(brief.live()) == {"dead", "renews"}
    membership.register(lease("renews"))
    time.sleep(0.4)
    assert set(membership.live()) == {"renews"}


def test_a_reader_hears_what_a_server_says_that_was_emptied_after_its_clock_was_set_back(
    membership: Membership, redis_connection: RedisConnection, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.weights.membership.LOOK_BACK_EVERY_S", 0.2)
    key = f"ratchet:{run}:weights"
    later = "return redis.call('XADD', KEYS[1], '99999999999999-0', 'kind', 'rendezvous', 'body', ARGV[1])"
    redis_connection.run_script(later, [key], [encode(RENDEZVOUS)])
    reader = membership.announcements()
    redis_connection.execute("DEL", key)
    membership.announce(MANIFEST)  # with the number of an hour before
    heard: list[object] = []
    end_s = time.monotonic() + 10.0
    while not heard and time.monotonic() < end_s:
        heard += reader.read(0.05)
    assert heard == [MANIFEST]
    assert list(reader.read(0.3)) == []


def test_a_server_that_was_emptied_has_lost_nobody_and_sets_no_generation_back(
    membership: Membership, redis_connection: RedisConnection
) -> None:
    membership.register(lease("a"))
    last = [membership.next_generation() for _ in range(5)][-1]
    announced = membership.announce(RENDEZVOUS)
    assert membership.is_announced(announced)
    assert [membership.offer(OFFER), membership.offer(OFFER)] == [False, True]
    assert membership.offered() == OFFER
    redis_connection.execute("FLUSHALL")
    assert membership.lost({"a": "1"}) == set()
    assert not membership.is_announced(announced)
    assert membership.offered() is None
    assert not membership.offer(OFFER)
    assert membership.next_generation(above=last) == last + 1
    assert membership.next_generation() == last + 2


def test_old_messages_are_deleted(membership: Membership, redis_connection: RedisConnection, run: str) -> None:
    for _ in range(1000):
        membership.announce(RENDEZVOUS)
    assert redis_connection.execute("XLEN", f"ratchet:{run}:weights") < 400  # 256, and what is left of a node
    for _ in range(6000):
        membership.confirm(confirmation("a"))
    assert redis_connection.execute("XLEN", f"ratchet:{run}:confirmations") < 4400  # 4096, likewise
