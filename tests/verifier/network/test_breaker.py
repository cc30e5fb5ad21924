from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from verifier.network.breaker import Breaker, BreakerRules, Permit, admit, answered, failed, withdrawn

RULES = BreakerRules(failures=3, open_s=10.0, longest_open_s=60.0, probe_s=35.0)


@dataclass
class World:
    """A breaker, a clock, and the requests that are under way."""

    rules: BreakerRules
    now_s: float = 0.0
    breaker: Breaker = field(default_factory=Breaker)
    permits: list[Permit] = field(default_factory=list)

    def ask(self) -> Permit | None:
        self.breaker, permit = admit(self.breaker, self.rules, self.now_s)
        if permit is not None:
            self.permits.append(permit)
        return permit

    def fail(self, permit: Permit) -> None:
        self.permits.remove(permit)
        self.breaker = failed(self.breaker, self.rules, permit, self.now_s)

    def fail_once(self) -> None:
        permit = self.ask()
        assert permit is not None
        self.fail(permit)


def opened() -> World:
    world = World(RULES)
    for _ in range(RULES.failures):
        world.fail_once()
    assert world.breaker.state == "open"
    return world


class EveryHistory(RuleBasedStateMachine):
    """Requests are asked for, end in every way, or never; the clock moves by any step."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(RULES)
        self.failures_in_a_row = 0

    @rule()
    def ask(self) -> None:
        before = self.world.breaker
        permit = self.world.ask()
        if before.state == "closed":
            assert permit is not None
        elif self.world.now_s < before.until_s:
            assert permit is None

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.world.now_s += seconds

    @precondition(lambda self: self.world.permits)
    @rule(choice=st.integers(0, 10**6), end=st.sampled_from(["answered", "failed", "withdrawn"]))
    def end(self, choice: int, end: str) -> None:
        world = self.world
        before, permit = world.breaker, world.permits.pop(choice % len(world.permits))
        current = permit.era == before.era
        if end == "answered":
            world.breaker = answered(before, permit)
        elif end == "failed":
            world.breaker = failed(before, RULES, permit, world.now_s)
        else:
            world.breaker = withdrawn(before, permit, world.now_s)
        if not current:
            assert world.breaker == before, "what was sent in another era says nothing of this one"
        elif end == "answered":
            assert world.breaker.state == "closed"
            assert world.breaker.failures == 0
        elif end == "failed" and before.state == "half_open":
            assert world.breaker.state == "open"
        self._count(before, end, current)

    def _count(self, before: Breaker, end: str, current: bool) -> None:
        """An account of our own of the failures in a row, as a closed breaker should see them."""
        if before.state != "closed" or not current:
            return
        if end == "failed":
            self.failures_in_a_row += 1
            assert (self.world.breaker.state == "open") == (self.failures_in_a_row == RULES.failures)
            if self.world.breaker.state == "open":
                self.failures_in_a_row = 0
        elif end == "answered":
            self.failures_in_a_row = 0

    @invariant()
    def at_most_one_probe_is_under_way(self) -> None:
        world = self.world
        if world.breaker.state == "half_open":
            assert sum(permit.era == world.breaker.era for permit in world.permits) == 1
        elif world.breaker.state == "open":
            assert not any(permit.era == world.breaker.era for permit in world.permits)

    @invariant()
    def it_is_not_shut_for_ever(self) -> None:
        longest_s = max(RULES.longest_open_s, RULES.probe_s)
        _, permit = admit(self.world.breaker, RULES, self.world.now_s + longest_s)
        assert permit is not None


TestEveryHistory = EveryHistory.TestCase


def test_it_opens_after_the_given_failures_in_a_row_and_not_before() -> None:
    world = World(RULES)
    for _ in range(5):
        world.fail_once()
        world.fail_once()
        permit = world.ask()
        assert permit is not None
        world.breaker = answered(world.breaker, permit)
    assert world.breaker.state == "closed"
    for _ in range(3):
        world.fail_once()
    assert world.ask() is None


def test_only_one_probe_goes_out_and_its_answer_lets_all_requests_through() -> None:
    world = opened()
    world.now_s += RULES.open_s
    probe = world.ask()
    assert probe is not None
    assert [world.ask() for _ in range(5)] == [None] * 5
    world.breaker = answered(world.breaker, probe)
    assert all(world.ask() is not None for _ in range(5))


def test_answers_to_what_was_sent_before_it_opened_do_not_close_it() -> None:
    world = World(RULES)
    early = world.ask()
    assert early is not None
    for _ in range(3):
        world.fail_once()
    assert answered(world.breaker, early) == world.breaker


def test_a_probe_that_is_withdrawn_makes_room_for_another_at_once() -> None:
    world = opened()
    world.now_s += RULES.open_s
    probe = world.ask()
    assert probe is not None
    world.breaker = withdrawn(world.breaker, probe, world.now_s)
    assert world.ask() is not None


def test_a_probe_that_reports_nothing_counts_as_lost() -> None:
    world = opened()
    world.now_s += RULES.open_s
    lost = world.ask()
    assert lost is not None
    world.now_s += RULES.probe_s
    assert world.ask() is not None
    assert failed(world.breaker, RULES, lost, world.now_s) == world.breaker


def test_each_probe_that_fails_doubles_the_time_until_the_next_up_to_a_bound() -> None:
    world, waits = opened(), []
    for _ in range(6):
        waits.append(world.breaker.until_s - world.now_s)
        world.now_s = world.breaker.until_s
        world.fail_once()
    assert waits == [10, 20, 40, 60, 60, 60]


@given(st.integers(1, 10**6), st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_no_opening_is_longer_than_both_of_its_bounds(openings: int, open_s: float, longest_s: float) -> None:
    rules = BreakerRules(1, open_s, longest_s, 1.0)
    assert open_s <= rules.open_for_s(openings) <= max(open_s, longest_s)
