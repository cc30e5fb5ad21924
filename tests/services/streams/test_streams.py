"""What every stream promises, checked on the real one and on the fake that other rooms' tests rely on."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.streams import Claim, IssueGap, IssueLog, Stream, StreamDepth
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from tests.fakes.streams import MemoryIssueLog, MemoryStream

IDLE_S = 0.05
runs = itertools.count()


@dataclass
class Server:
    """Where a test gets its streams: on Redis, or in memory."""

    connection: RedisConnection | None
    run: str = field(default_factory=lambda: f"run-{next(runs)}")
    memory: dict[str, MemoryStream] = field(default_factory=dict)
    logs: dict[str, IssueLog] = field(default_factory=dict)

    def stream(self, name: str, consumer: str, idle_s: float = IDLE_S) -> Stream:
        if self.connection is not None:
            return RedisStream(self.connection, self.run, name, consumer, idle_s)
        return self.memory.setdefault(name, MemoryStream(name, reclaim_idle_s=idle_s)).as_consumer(consumer)

    def log(self, name: str) -> IssueLog:
        if name not in self.logs:
            stream = self.stream(name, "issuer")
            if isinstance(stream, RedisStream):
                assert self.connection is not None
                self.logs[name] = RedisIssueLog(self.connection, stream)
            else:
                assert isinstance(stream, MemoryStream)
                self.logs[name] = MemoryIssueLog(stream)
        return self.logs[name]

    def fill(self, name: str, count: int) -> list[bytes]:
        log, payloads = self.log(name), [f"entry {i}".encode() for i in range(count)]
        for i, payload in enumerate(payloads):
            assert log.issue(i, payload)
        return payloads


@pytest.fixture(params=["redis", "memory"])
def new_server(request: pytest.FixtureRequest) -> Callable[[], Server]:
    connection = request.getfixturevalue("redis_connection") if request.param == "redis" else None
    return lambda: Server(connection)


@pytest.fixture
def server(new_server: Callable[[], Server]) -> Server:
    return new_server()


def test_an_entry_is_lent_to_one_consumer_at_a_time(server: Server) -> None:
    payloads = server.fill("prompts", 5)
    first = server.stream("prompts", "a", 60).claim(3, 0)
    second = server.stream("prompts", "b", 60).claim(3, 0)
    assert [claim.payload for claim in first + second] == payloads
    assert all(claim.deliveries == 1 for claim in first + second)


def test_a_claim_on_an_empty_stream_waits_as_long_as_it_was_told(server: Server) -> None:
    begun_s = time.monotonic()
    assert server.stream("prompts", "a").claim(1, 0.2) == []
    assert 0.19 <= time.monotonic() - begun_s < 2


def test_handing_over_moves_an_entry_once_however_often_it_is_repeated(server: Server) -> None:
    server.fill("prompts", 1)
    prompts, trajectories = server.stream("prompts", "a"), server.stream("trajectories", "a")
    [claim] = prompts.claim(1, 0)
    assert [prompts.hand_over(claim, trajectories, b"result") for _ in range(3)] == [True, False, False]
    assert trajectories.peek(9) == [b"result"]
    assert prompts.depth() == StreamDepth(0, 0)


def test_the_faster_of_two_consumers_wins_whoever_owns_the_claim(server: Server) -> None:
    server.fill("prompts", 1)
    slow, quick = server.stream("prompts", "slow"), server.stream("prompts", "quick")
    out = server.stream("trajectories", "x")
    [before] = slow.claim(1, 0)
    time.sleep(IDLE_S * 1.5)
    [after] = quick.claim(1, 1)
    assert slow.hand_over(before, out, b"slow")
    assert not quick.hand_over(after, out, b"quick")
    assert out.peek(9) == [b"slow"]


def test_many_are_handed_over_in_one_call_each_on_its_own_account(server: Server) -> None:
    server.fill("prompts", 3)
    prompts, out = server.stream("prompts", "a"), server.stream("trajectories", "a")
    claims = prompts.claim(3, 0)
    assert prompts.acknowledge(claims[1:2]) == 1
    assert prompts.hand_over_many([(claim, claim.payload) for claim in claims], out) == [True, False, True]
    assert out.peek(9) == [b"entry 0", b"entry 2"]


@pytest.mark.parametrize("size", [10, 100_000])
def test_payloads_of_any_size_cross_once_and_in_order(server: Server, size: int) -> None:
    server.fill("prompts", 5)
    prompts, out = server.stream("prompts", "a"), server.stream("trajectories", "a")
    claims = prompts.claim(5, 0)
    results = [(claim, claim.payload * (size // 7)) for claim in claims]
    assert prompts.acknowledge(claims[2:3]) == 1
    assert prompts.hand_over_many(results[:4], out) == [True, True, False, True]
    assert prompts.hand_over_many(results[3:], out) == [False, True]
    assert prompts.hand_over_many(results, out) == [False] * 5
    assert out.peek(9) == [payload for _, payload in [*results[:2], *results[3:]]]
    assert prompts.depth() == StreamDepth(0, 0)


def test_acknowledging_counts_what_was_still_owed(server: Server) -> None:
    server.fill("scored", 3)
    scored = server.stream("scored", "a")
    claims = scored.claim(2, 0)
    assert (scored.acknowledge(claims), scored.acknowledge(claims)) == (2, 0)
    assert scored.depth() == StreamDepth(waiting=1, pending=0)


def test_after_a_restart_a_consumer_gets_its_own_claims_before_new_ones(server: Server) -> None:
    server.fill("prompts", 4)
    before = server.stream("prompts", "a", 60).claim(2, 0)
    after = server.stream("prompts", "a", 60).claim(4, 0)
    assert [claim.entry_id for claim in after[:2]] == [claim.entry_id for claim in before]
    assert [claim.deliveries for claim in after] == [2, 2, 1, 1]


def test_what_is_held_is_not_lent_again_to_its_holder(server: Server) -> None:
    server.fill("prompts", 2)
    prompts = server.stream("prompts", "a", 60)
    assert [len(prompts.claim(1, 0)) for _ in range(3)] == [1, 1, 0]


def test_deliveries_rise_when_others_take_over_and_not_when_a_claim_is_renewed(server: Server) -> None:
    idle_s = 1.0
    server.fill("prompts", 1)
    a, b = server.stream("prompts", "a", idle_s), server.stream("prompts", "b", idle_s)
    claims = a.claim(1, 0)
    for _ in range(3):
        time.sleep(0.4 * idle_s)
        assert a.renew(claims) == []
        assert b.claim(1, 0) == []
    time.sleep(1.1 * idle_s)
    [taken] = b.claim(1, 1)
    assert taken.deliveries == 2
    assert a.renew(claims) == claims, "renewing must say that the claim was lost, and leave it with its new owner"
    assert b.renew([taken]) == []


def test_what_is_given_back_goes_out_at_once_and_was_no_delivery(server: Server) -> None:
    server.fill("prompts", 2)
    a, b = server.stream("prompts", "a", 60), server.stream("prompts", "b", 60)
    given = a.claim(2, 0)
    a.release()
    a.release(given)
    taken = b.claim(2, 0)
    assert [(claim.entry_id, claim.deliveries) for claim in taken] == [(claim.entry_id, 1) for claim in given]
    a.release(taken)
    assert b.renew(taken) == [], "only the owner may give back"


def test_a_number_is_issued_once_and_no_number_is_left_out(server: Server) -> None:
    log = server.log("prompts")
    assert [log.issue(0, b"0"), log.issue(0, b"again"), log.issue(1, b"1")] == [True, False, True]
    with pytest.raises(IssueGap, match="holds only 2"):
        log.issue(3, b"3")
    assert log.issue_many(1, [b"again", b"2", b"3"]) == 2
    with pytest.raises(IssueGap, match="holds only 4"):
        log.issue_many(5, [b"5", b"6"])
    log.advance(1)
    log.advance(6)
    assert log.issued_count() == 6
    with pytest.raises(IssueGap, match="holds only 6"):
        log.issue(7, b"7")
    many = [b"%d" % number for number in range(6, 306)]
    assert log.issue_many(6, many) == 300
    assert log.issue_many(0, [b"again", *many]) == 0
    assert log.issued_count() == 306
    assert server.stream("prompts", "a").peek(400) == [b"0", b"1", b"2", b"3", *many]


def test_what_kills_its_worker_three_times_is_named_and_its_neighbors_are_not(server: Server) -> None:
    """The worker claims all that it gets, works on it at once, and dies when the poison is among it."""
    server.fill("prompts", 8)
    out, buried, deaths = server.stream("trajectories", "x"), list[bytes](), 0
    done: list[bytes] = []
    while len(done) + len(buried) < 8:
        worker = server.stream("prompts", "a", 60)  # the same name after each restart
        while claims := worker.claim(8, 0):
            for claim in [claim for claim in claims if claim.deliveries > 3]:
                buried.append(claim.payload)
                worker.acknowledge([claim])
            alive = [claim for claim in claims if claim.deliveries <= 3]
            if any(claim.payload in (b"entry 2", b"entry 5") for claim in alive):
                deaths += 1
                break
            assert all(worker.hand_over_many([(claim, claim.payload) for claim in alive], out))
            done += [claim.payload for claim in alive]
    assert sorted(buried) == [b"entry 2", b"entry 5"]
    assert deaths == 4  # two together, then each once more by itself


# One event: which of three consumers of which stage, what it does, and a number that picks among what it holds.
Event = tuple[int, int, str, int]
ACTS = ["claim", "claim", "hand over", "hand over", "repeat", "renew", "release", "restart", "die", "wait"]
events = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from(ACTS), st.integers(0, 9)), max_size=60
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events, st.integers(1, 8), st.sampled_from([b"", b"x" * 50_000]))
def test_every_entry_crosses_every_stage_once_whoever_dies(
    new_server: Callable[[], Server], happenings: list[Event], count: int, filling: bytes
) -> None:
    server = new_server()
    stages, names = ("prompts", "trajectories", "scored"), itertools.count()
    payloads = server.fill("prompts", count)
    consumers = {(s, c): server.stream(stages[s], f"c{c}") for s in range(2) for c in range(3)}
    claims: dict[tuple[int, int], list[Claim]] = {who: [] for who in consumers}
    done: dict[tuple[int, int], list[Claim]] = {who: [] for who in consumers}
    crossed: list[list[bytes]] = [[], []]

    def hand_over(who: tuple[int, int], claim: Claim) -> None:
        payload = claim.payload if who[0] else claim.payload + filling
        if consumers[who].hand_over(claim, server.stream(stages[who[0] + 1], "none"), payload):
            crossed[who[0]].append(payload)

    for stage, consumer, act, number in happenings:
        who = (stage, consumer)
        held, stream = claims[who], consumers[who]
        if act == "claim":
            held += stream.claim(number % 3 + 1, 0)
        elif act == "wait":
            time.sleep(IDLE_S * number / 9)
        elif act == "restart":  # claims are forgotten, the name stays
            consumers[who], claims[who] = server.stream(stages[stage], stream_name(stream)), []
        elif act == "die":
            consumers[who], claims[who] = server.stream(stages[stage], f"heir-{next(names)}"), []
        elif act == "repeat" and done[who]:
            hand_over(who, done[who][number % len(done[who])])
        elif act == "renew":
            stream.renew(held[number % 3 :])
        elif act == "release":
            stream.release(held[number % 3 :])
            del held[number % 3 :]
        elif act == "hand over" and held:
            done[who].append(held.pop(number % len(held)))
            hand_over(who, done[who][-1])

    for stage in range(2):
        heir = consumers[stage, 0] = server.stream(stages[stage], "last")
        end_s = time.monotonic() + 10
        while heir.depth() != StreamDepth(0, 0):
            assert time.monotonic() < end_s, "entries are left that nobody can claim"
            for claim in heir.claim(8, IDLE_S):
                hand_over((stage, 0), claim)
        assert sorted(crossed[stage]) == [payload + filling for payload in payloads]
    assert sorted(server.stream("scored", "x").peek(99)) == [payload + filling for payload in payloads]


def stream_name(stream: Stream) -> str:
    assert isinstance(stream, RedisStream | MemoryStream)
    return stream.consumer


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 6), max_size=30))
def test_the_log_holds_every_number_once_and_in_order_whatever_is_repeated(
    new_server: Callable[[], Server], numbers: list[int]
) -> None:
    server, expected = new_server(), 0
    log = server.log("prompts")
    for number in numbers:
        if number > expected:
            with pytest.raises(IssueGap):
                log.issue(number, b"")
        else:
            assert log.issue(number, str(number).encode()) == (number == expected)
            expected += number == expected
    assert log.issued_count() == expected
    assert server.stream("prompts", "a").peek(99) == [str(i).encode() for i in range(expected)]
