"""While the loop takes a step: the same groups for the same steps, credits at once, and nothing settled early."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from learner.intake.ahead import Ahead
from learner.intake.collector import Collector, Sampled
from learner.intake.drought import NoUsableGroups
from learner.intake.gathering import Gathered
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.run_state import RunState
from services.errors import StreamError, WeightSyncError
from services.streams import Claim
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup
from tests.fakes.streams import MemoryIssueLog, MemoryStream
from tests.learner.small_run import PROBLEMS, small_config, token_ids
from tests.learner.tiny import scored_group

EQUAL, DIFFERENT = [1.0, 1.0], [1.0, 0.0]


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds, which another thread brings about."""
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s, "it never holds"
        time.sleep(0.002)


class Replicas:
    def __init__(self) -> None:
        self.confirmed_version: int | None = 0
        self.fault: Exception | None = None
        self.stopping = False

    def should_stop(self) -> bool:
        if self.fault is not None:
            raise self.fault
        return self.stopping


class Scored(MemoryStream):
    """A stream whose claims can be made to fail, and are counted."""

    fault: Exception | None = None
    looks = 0

    def claim(self, count: int, block_s: float) -> list[Claim]:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return super().claim(count, block_s)


class Bench:
    """An intake of two groups a step, one step ahead, over streams in memory; the test is the loop, and the other rooms."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.config = small_config(folder, *overrides)
        self.prompts = MemoryStream("prompts")
        self.log = MemoryIssueLog(self.prompts)
        self.dead = MemoryStream("dead", "learner")
        self.scored = Scored("scored", "learner")
        self.replicas = Replicas()
        self.begin()

    def begin(self, saved: dict[str, Any] | None = None, state: RunState | None = None) -> None:
        """A start of the learner. saved: the ledger of a checkpoint."""
        self.state = state or RunState.begin(self.config.learner)
        self.ledger = Ledger.from_dict(saved) if saved else Ledger()
        self.intake = Intake(
            self.config,
            state=self.state,
            ledger=self.ledger,
            issuer=PromptIssuer(self.config, [PromptSource(PROBLEMS, token_ids)], self.log),
            collector=Collector(self.scored, self.dead, self.ledger, Sampled()),
            replicas=self.replicas,
            streams=[self.prompts, self.scored, self.dead],
        )

    def issued(self) -> list[int]:
        return [decode(payload, Prompt).sequence_number for payload in self.prompts.peek(1000)]

    def arrive(self, *numbers: int, rewards: list[float] = DIFFERENT, version: int = 0) -> None:
        for number in numbers:
            self.scored.append(
                encode(scored_group(number, rewards=rewards, versions=[[(version, 2)]] * 2, responses=[[1, 2]] * 2))
            )

    def die(self, number: int) -> None:
        prompt = scored_group(number, rewards=EQUAL).group.prompt
        self.dead.append(
            encode(DeadGroup(prompt=prompt, group_id=prompt.group_id, stage="prompts", cause="c", payload=b""))
        )

    def step(self, gathered: Gathered) -> None:
        with self.intake.lock:
            self.intake.settle(gathered, trained=True)
            self.state.policy_version += 1
        self.replicas.confirmed_version = self.state.policy_version

    def gathered(self) -> Gathered:
        gathered = self.intake.gather()
        assert gathered is not None
        return gathered

    def looked(self) -> None:
        """Wait until everything that has come by now was looked at, and once more."""
        before = self.scored.looks
        until(lambda: self.scored.looks >= before + 3)


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(*overrides: str) -> Bench:
        made.append(Bench(tmp_path, *overrides))
        return made[-1]

    yield make
    for bench in made:
        bench.intake.end_ahead()


def numbers(gathered: Gathered) -> tuple[list[int], list[int]]:
    """Sequence numbers of what was consumed, and of what is kept."""
    consumed = [group.group.prompt.sequence_number for group in gathered.groups]
    return consumed, [group.prompt.sequence_number for group in gathered.kept]


def in_a_step(bench: Bench) -> Gathered:
    """Four groups are issued, the first two gathered, and the loop is busy with them."""
    bench.intake.issue()
    bench.arrive(0, 1)
    gathered = bench.gathered()
    bench.intake.begin_ahead()
    return gathered


# Credits


def test_what_is_dropped_while_a_step_is_computed_gives_its_credit_back_at_once(make_bench: MakeBench) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    bench.arrive(2, rewards=EQUAL)
    bench.die(3)
    until(lambda: bench.issued() == [0, 1, 2, 3, 4, 5])
    bench.arrive(4, rewards=EQUAL)
    until(lambda: bench.issued() == [0, 1, 2, 3, 4, 5, 6])
    bench.step(gathered)


def test_credits_of_a_step_go_out_when_its_weights_are_confirmed_and_not_before(make_bench: MakeBench) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    with bench.intake.lock:
        bench.intake.settle(gathered, trained=True)
        bench.state.policy_version = 1
    bench.looked()
    assert bench.issued() == [0, 1, 2, 3]
    bench.replicas.confirmed_version = 1
    until(lambda: bench.issued() == [0, 1, 2, 3, 4, 5])


def test_no_group_is_further_ahead_than_max_lag_allows(make_bench: MakeBench) -> None:
    """However many are dropped ahead: those that hold a credit are (max_lag + 1) x groups_per_step at most."""
    bench = make_bench()
    gathered = in_a_step(bench)
    for _ in range(10):
        bench.arrive(*[number for number in bench.issued() if number > 1][-1:], rewards=EQUAL)
        bench.looked()
    out = len(bench.issued()) - 10
    assert out == 4
    bench.step(gathered)


# Order


@pytest.mark.parametrize("ahead", [True, False])
def test_the_same_arrivals_go_into_the_same_steps(make_bench: MakeBench, ahead: bool) -> None:
    """Group 5 was sampled under version 0 and comes in the step from version 2: stale, by the version of its own step."""
    bench = make_bench("learner.steps=9")
    bench.state.issued = 12
    bench.log.advance(12)
    bench.arrive(0, 1, 2)
    bench.arrive(3, rewards=EQUAL)
    bench.arrive(4, version=1)
    bench.arrive(5, version=0)
    bench.arrive(6, 7, version=2)
    bench.arrive(8, rewards=EQUAL, version=2)
    bench.arrive(9, version=0)
    bench.arrive(10, 11, version=2)
    found = []
    for _ in range(4):
        gathered = bench.gathered()
        if ahead:
            bench.intake.begin_ahead()
            bench.looked()
        found.append((*numbers(gathered), gathered.drops))
        bench.step(gathered)
    assert found == [
        ([0, 1], [0, 1], {}),
        ([2, 3, 4], [2, 4], {"train-3": "zero_variance"}),
        ([5, 6, 7], [6, 7], {"train-5": "stale"}),
        ([8, 9, 10, 11], [10, 11], {"train-8": "zero_variance", "train-9": "stale"}),
    ]
    assert bench.intake.counts()["dropped"] == {"stale": 2, "zero_variance": 2}


def test_groups_that_come_while_the_loop_waits_go_to_the_step_that_was_begun_ahead(make_bench: MakeBench) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    bench.arrive(2)
    bench.looked()
    bench.step(gathered)
    threading.Timer(0.1, bench.arrive, (3,)).start()
    assert numbers(bench.gathered()) == ([2, 3], [2, 3])


# What is settled, and when


def test_what_is_dropped_ahead_is_settled_with_the_step_that_consumes_it(make_bench: MakeBench) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    bench.arrive(2, rewards=EQUAL)
    until(lambda: bench.issued() == [0, 1, 2, 3, 4])
    bench.step(gathered)
    assert not bench.ledger.is_settled(2)
    assert [owed.sequence_number for owed in bench.intake.settled_claims()] == [0, 1]
    counts = bench.intake.counts()
    assert (counts["trained"], counts["dropped"], counts["dead"]) == (2, {}, 0)
    bench.arrive(3, 4)
    assert numbers(bench.gathered()) == ([2, 3, 4], [3, 4])
    assert bench.ledger.is_settled(2)


def test_a_crash_between_an_early_drop_and_its_step_loses_and_doubles_nothing(make_bench: MakeBench) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    bench.arrive(2, rewards=EQUAL)
    until(lambda: bench.issued() == [0, 1, 2, 3, 4])
    bench.step(gathered)
    with bench.intake.lock:
        saved, issued = bench.intake.to_dict(), bench.state.issued
        settled = bench.intake.settled_claims()
    bench.intake.acknowledge(settled)
    bench.intake.end_ahead()  # killed here: what its memory held is gone
    state = RunState.begin(bench.config.learner)
    state.policy_version = 1
    state.issued = issued
    bench.scored = bench.scored.as_consumer("learner")  # type: ignore[assignment]
    bench.begin(saved, state)
    bench.arrive(3, 4)
    assert numbers(bench.gathered()) == ([2, 3, 4], [3, 4])
    assert bench.intake.counts()["dropped"] == {"zero_variance": 1}


def test_a_group_that_was_dropped_ahead_and_comes_again_is_a_repeat(make_bench: MakeBench) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    bench.arrive(2, 2, rewards=EQUAL)
    bench.arrive(3)
    bench.looked()
    assert len(bench.issued()) == 5
    bench.step(gathered)
    bench.arrive(4)
    assert numbers(bench.gathered()) == ([2, 3, 4], [3, 4])


# Who waits, and what ends it


def test_the_loop_alone_is_said_to_wait(make_bench: MakeBench) -> None:
    bench = make_bench()
    in_a_step(bench)
    labels = {"room": "learner", "awaiting": "scored groups"}
    seen = set()
    for _ in range(20):
        seen.add(REGISTRY.get_sample_value("ratchet_waiting", labels) or 0.0)
        time.sleep(0.005)
    assert seen == {0.0}


def test_a_stop_ends_the_looks_and_nothing_is_claimed_afterwards(make_bench: MakeBench) -> None:
    bench = make_bench()
    in_a_step(bench)
    bench.replicas.stopping = True
    begun_s = time.monotonic()
    bench.intake.end_ahead()
    assert time.monotonic() - begun_s < 1.0
    looks = bench.scored.looks
    bench.arrive(2)
    time.sleep(0.1)
    assert (bench.scored.looks, bench.scored.depth().waiting) == (looks, 1)


@pytest.mark.parametrize(("overrides", "steps"), [(("learner.max_lag=0",), 4), ((), 1)])
def test_nothing_is_gathered_ahead_where_nothing_can_be_or_no_step_is_left(
    make_bench: MakeBench, overrides: tuple[str, ...], steps: int
) -> None:
    bench = make_bench(*overrides, f"learner.steps={steps}")
    in_a_step(bench)
    looks = bench.scored.looks
    time.sleep(0.15)
    assert bench.scored.looks == looks


def test_nothing_is_looked_at_while_it_is_paused(make_bench: MakeBench) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    with bench.intake.paused():
        looks = bench.scored.looks
        time.sleep(0.1)
        assert bench.scored.looks == looks
    bench.looked()
    bench.step(gathered)


@pytest.mark.parametrize("where", ["replicas", "streams"])
def test_a_fault_of_the_thread_is_raised_once_by_the_next_gather(make_bench: MakeBench, where: str) -> None:
    bench = make_bench()
    gathered = in_a_step(bench)
    if where == "replicas":
        bench.replicas.fault = WeightSyncError("nobody takes the weights")
    else:
        bench.scored.fault = StreamError("the server is gone")
    looks = bench.scored.looks
    time.sleep(0.2)
    assert bench.scored.looks <= looks + 1
    bench.step(gathered)
    bench.replicas.fault = bench.scored.fault = None
    with pytest.raises((WeightSyncError, StreamError), match=r"nobody takes|the server is gone"):
        bench.intake.gather()
    bench.arrive(2, 3)
    assert numbers(bench.gathered()) == ([2, 3], [2, 3])


def test_too_many_drops_ahead_end_the_run_in_the_loop(make_bench: MakeBench) -> None:
    bench = make_bench("learner.max_unusable_groups=2")
    gathered = in_a_step(bench)
    for count in range(20):  # ten times as many once a group has counted
        until(lambda count=count: len(bench.issued()) == 4 + count)  # type: ignore[misc]
        bench.arrive(2 + count, rewards=EQUAL)
    until(lambda: len(bench.issued()) == 24)
    bench.step(gathered)
    with pytest.raises(NoUsableGroups, match="for 20 groups there was nothing to train on"):
        bench.intake.gather()


# The thread


def test_looks_go_on_until_one_says_no_and_again_when_they_are_wanted() -> None:
    said = iter([True, True, False, True, False])
    done: list[bool] = []

    def look() -> bool:
        done.append(next(said))
        return done[-1]

    ahead = Ahead(look)
    assert not ahead.pause()
    ahead.begin()
    until(lambda: len(done) == 3)
    assert not ahead.pause()
    ahead.begin()
    until(lambda: len(done) == 5)
    ahead.close()
    ahead.begin()
    assert not ahead.pause()
    assert done == [True, True, False, True, False]


def test_a_fault_that_nobody_raises_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    looking = threading.Event()

    def look() -> bool:
        looking.set()
        raise StreamError("the server is gone")

    ahead = Ahead(look)
    ahead.begin()
    assert looking.wait(10.0)
    ahead.close()
    assert "what was gathered ahead ended by the server is gone" in caplog.text
    ahead.raise_fault()
