"""A group that kills the learner is found by bisection over its starts, and nobody else is taken for it."""

import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from learner.control import suspicion
from learner.control.suspicion import DEATHS_ALONE, DEATHS_OF_A_STEP, DEATHS_WITHOUT_END
from services.run.step_in_hand import StepInHand


@dataclass
class Learner:
    """A learner that dies in every step with one of `poison`, goes back to its last checkpoint, and does as it is told."""

    groups: int
    groups_per_step: int
    poison: set[int]
    checkpoint_every: int = 3
    outside: set[int] = field(default_factory=set)
    """Steps, counted over all starts, in which somebody else kills it."""
    state: StepInHand = field(default_factory=StepInHand)
    saved: set[int] = field(default_factory=set)
    buried: set[int] = field(default_factory=set)
    deaths: int = 0
    steps: int = 0
    alone: list[tuple[int, ...]] = field(default_factory=list)
    """What was tried, step after step."""

    def run(self) -> None:
        while not self._start():
            self.deaths += 1
            assert self.deaths < 500

    def _start(self) -> bool:
        """One start; whether all groups are settled in the end."""
        self.state = suspicion.died(self.state)
        if suspicion.is_hopeless(self.state):
            return True
        trained, taken = set(self.saved), 0
        while True:
            settled = trained | self.buried
            self.state = suspicion.without(self.state, settled.__contains__)
            self.buried |= {*self.state.convicted}
            settled |= self.buried
            self.state = suspicion.without(self.state, settled.__contains__)
            left = [group for group in range(self.groups) if group not in settled]
            if not left:
                return True
            chosen = self.state.parts[0] if self.state.parts else tuple(left[: self.groups_per_step])
            self.state = suspicion.begun(self.state, taken + 1, chosen)
            self.steps += 1
            if self.state.parts:
                self.alone.append(chosen)
            if self.poison & set(chosen) or self.steps in self.outside:
                return False
            self.state = suspicion.ended(self.state)
            trained |= set(chosen)
            taken += 1
            if taken % self.checkpoint_every == 0:
                self.saved = set(trained)


RUNS = st.integers(1, 24).flatmap(
    lambda groups: st.builds(
        Learner,
        groups=st.just(groups),
        groups_per_step=st.integers(1, 12),
        poison=st.sets(st.integers(0, groups - 1), max_size=3),
        checkpoint_every=st.integers(1, 4),
    )
)


@given(RUNS)
def test_each_group_that_kills_the_learner_is_found_and_all_others_are_trained_on(learner: Learner) -> None:
    learner.run()
    if suspicion.is_hopeless(learner.state):  # a step had nothing else in it, so that none could come to its end
        assert {*learner.state.condemned} | learner.buried <= learner.poison
        assert len(learner.state.condemned) > 1
        return
    assert learner.buried == learner.poison
    largest = min(learner.groups_per_step, learner.groups)
    each = DEATHS_OF_A_STEP + math.ceil(math.log2(largest)) + DEATHS_ALONE
    assert learner.deaths <= len(learner.poison) * each
    assert suspicion.suspects(learner.state) == 0


@given(RUNS, st.sets(st.integers(1, 40), max_size=3))
def test_nobody_is_taken_for_it_who_did_not_kill_the_learner_alone(learner: Learner, outside: set[int]) -> None:
    """Whoever kills it from outside: fewer times than it takes to be suspected and condemned."""
    learner.poison = set()
    learner.outside = outside
    learner.run()
    assert not learner.buried
    assert learner.deaths == len([step for step in outside if step <= learner.steps])


@given(RUNS, st.integers(1, 60))
def test_one_kill_from_outside_condemns_nobody_even_beside_groups_that_do(learner: Learner, step: int) -> None:
    learner.outside = {step}
    learner.run()
    assert learner.buried <= learner.poison
    assert learner.buried == learner.poison or suspicion.is_hopeless(learner.state)


@given(st.integers(2, 64))
def test_where_every_step_kills_it_nobody_is_to_blame_and_that_is_soon_clear(groups: int) -> None:
    learner = Learner(groups, groups, set(range(groups)))
    learner.run()
    assert suspicion.is_hopeless(learner.state)
    assert not learner.buried
    assert learner.deaths <= DEATHS_OF_A_STEP + DEATHS_WITHOUT_END


def test_a_step_that_is_only_too_large_as_a_whole_is_trained_on_in_parts() -> None:
    state = StepInHand()
    for _ in range(DEATHS_OF_A_STEP):
        state = suspicion.died(suspicion.begun(state, 1, (0, 1, 2, 3)))
    assert state.parts == ((0, 1), (2, 3))
    for part in state.parts:
        state = suspicion.ended(suspicion.begun(state, 1, part))
    assert (suspicion.suspects(state), state.deaths, state.convicted) == (0, {}, ())


def test_steps_that_have_no_group_in_common_make_no_suspects() -> None:
    state = suspicion.died(suspicion.begun(StepInHand(), 1, (0, 1)))
    state = suspicion.died(suspicion.begun(state, 2, (2, 3)))
    assert suspicion.suspects(state) == 0
    assert state.deaths == dict.fromkeys(range(4), 1)
    state = suspicion.ended(suspicion.begun(state, 1, (0, 1)))
    assert state.deaths == {2: 1, 3: 1}  # what came to its end is forgotten


def test_only_what_was_in_both_steps_is_suspected() -> None:
    state = suspicion.died(suspicion.begun(StepInHand(), 1, (0, 1, 2)))
    state = suspicion.died(suspicion.begun(state, 1, (2, 3, 4)))
    assert state.parts == ((2,),)


def test_an_end_in_order_says_nothing_of_the_groups() -> None:
    state = replace(suspicion.begun(StepInHand(), 1, (0, 1)), excused=True)
    assert suspicion.died(state) == StepInHand(step=1)


def test_who_is_condemned_goes_to_dead_only_once_a_step_has_come_to_its_end() -> None:
    state = StepInHand()
    for _ in range(DEATHS_OF_A_STEP):
        state = suspicion.died(suspicion.begun(state, 1, (0, 1, 2)))
    while not state.condemned:
        part = state.parts[0]
        state = suspicion.begun(state, 1, part)
        state = (
            suspicion.died(state) if len(part) > 1 or part == (2,) else replace(state, parts=(*state.parts[1:], part))
        )
    assert (state.condemned, state.convicted) == ((2,), ())
    state = suspicion.ended(suspicion.begun(state, 1, state.parts[0]))
    assert (state.condemned, state.convicted) == ((), (2,))
