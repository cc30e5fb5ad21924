"""Properties of the samplers: nobody is left out, caps and cool-downs are kept, and the state survives a round trip."""

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.prompts.curriculum import LONGEST_WAIT_EPOCHS, Curriculum
from learner.prompts.group_size import group_size
from learner.prompts.measured import Measured
from learner.prompts.replay import Replay
from learner.prompts.sampler import Mask, Sampler, Turn
from learner.prompts.skip import awake
from learner.prompts.uniform import Uniform
from services.config.samplers import AdaptiveGroupConfig, CurriculumSampler, ReplaySampler, SkipConfig
from services.datasets.dataset import PromptCursor

Made = Callable[[int], Sampler]
GROUPS_A_STEP = 4


def uniform(problems: int) -> Uniform:
    return Uniform(3, problems, shuffle=True)


def replay(problems: int) -> Replay:
    return Replay(ReplaySampler(share=0.6, cooldown_steps=2, max_reuses=2), 3, uniform(problems))


def curriculum(problems: int) -> Curriculum:
    return Curriculum(CurriculumSampler(over_steps=20), 3)


MADE = [uniform, replay, curriculum]


def all_of(measured: Measured) -> Mask:
    return np.ones(len(measured), dtype=np.bool_)


def drawn(
    sampler: Sampler, measured: Measured, first: int, count: int, rate_of: Callable[[int], float]
) -> list[tuple[int, int, bool]]:
    """(step, problem, in turn) of `count` prompts from number `first` on, each measured as soon as it is issued."""
    picks = []
    for number in range(first, first + count):
        step = number // GROUPS_A_STEP
        choice = sampler.choose(Turn(number, step), measured, all_of(measured))
        assert choice == sampler.choose(Turn(number, step), measured, all_of(measured))
        sampler.note(choice, measured)
        measured.note(choice.problem, step)
        measured.observe(choice.problem, rate_of(choice.problem), step)
        picks.append((step, choice.problem, choice.in_turn))
    return picks


def rates(seed: int, problems: int) -> Callable[[int], float]:
    values = np.random.default_rng(seed).integers(0, 9, problems) / 8
    return lambda problem: float(values[problem])


@pytest.mark.parametrize("make", MADE)
@given(problems=st.integers(1, 30), seed=st.integers(0, 20))
def test_no_problem_is_left_out(make: Made, problems: int, seed: int) -> None:
    """Even if it is always solved, or never: in as many prompts as its longest wait allows, every problem comes."""
    measured = Measured(problems)
    longest = 7 * LONGEST_WAIT_EPOCHS * problems
    picks = drawn(make(problems), measured, 0, longest, rates(seed, problems))
    assert {problem for _, problem, _ in picks} == set(range(problems))
    assert {problem for _, problem, _ in picks[longest // 2 :]} == set(range(problems))


@pytest.mark.parametrize("make", MADE)
@given(problems=st.integers(1, 20), before=st.integers(0, 60), seed=st.integers(0, 20))
def test_after_a_round_trip_the_choices_are_the_same(make: Made, problems: int, before: int, seed: int) -> None:
    sampler, measured = make(problems), Measured(problems)
    drawn(sampler, measured, 0, before, rates(seed, problems))
    again, measured_again = make(problems), Measured(problems)
    again.restore(json.loads(json.dumps(sampler.to_dict())))
    measured_again.restore(json.loads(json.dumps(measured.to_dict())))
    assert drawn(again, measured_again, before, 40, rates(seed, problems)) == drawn(
        sampler, measured, before, 40, rates(seed, problems)
    )


@given(problems=st.integers(1, 40), seed=st.integers(0, 100), shuffle=st.booleans())
def test_uniform_goes_in_the_order_that_numbers_always_had(problems: int, seed: int, shuffle: bool) -> None:
    cursor = PromptCursor(seed, problems, shuffle=shuffle)
    picks = drawn(Uniform(seed, problems, shuffle=shuffle), Measured(problems), 0, 3 * problems, lambda _: 0.5)
    assert [problem for _, problem, _ in picks] == [cursor.at(number)[1] for number in range(3 * problems)]


@given(problems=st.integers(2, 30), seed=st.integers(0, 50))
def test_replay_keeps_cap_and_cool_down_and_stays_near_one_half(problems: int, seed: int) -> None:
    rate_of = rates(seed, problems)
    picks = drawn(replay(problems), Measured(problems), 0, 300, rate_of)
    last: dict[int, int] = {}
    reuses: Counter[int] = Counter()
    for step, problem, in_turn in picks:
        if in_turn:
            reuses[problem] = 0
        else:
            reuses[problem] += 1
            assert reuses[problem] <= 2
            assert step - last[problem] >= 2
            assert 0.25 <= rate_of(problem) <= 0.75
        last[problem] = step


def test_replay_takes_its_share_where_there_is_enough_to_replay() -> None:
    sampler = Replay(ReplaySampler(share=0.6, cooldown_steps=2, max_reuses=1000), 3, uniform(200))
    picks = drawn(sampler, Measured(200), 0, 2000, lambda _: 0.5)
    replayed = sum(not in_turn for _, _, in_turn in picks)
    assert replayed == pytest.approx(0.6 * 2000, abs=4 * (2000 * 0.6 * 0.4) ** 0.5)


def test_a_curriculum_draws_by_its_weights_and_moves_from_easy_to_hard() -> None:
    """Within the interval of four deviations: each problem near its part of the weights, while none rests or waits too long."""
    settings = CurriculumSampler(start=0.9, end=0.1, over_steps=100, floor=0.2)
    measured, sampler = Measured(5), Curriculum(settings, 1)
    for problem in range(5):
        measured.note(problem, 0)
        measured.observe(problem, problem / 4, 0)
    measured.draws = 10  # none of them rests
    for step, hardest_first in ((0, False), (100, True)):
        counts = Counter(sampler.choose(Turn(n, step), measured, all_of(measured)).problem for n in range(4000))
        weights = sampler.weights(step, measured)
        share = weights / weights.sum()
        for problem in range(5):
            deviation = (4000 * share[problem] * (1 - share[problem])) ** 0.5
            assert abs(counts[problem] - 4000 * share[problem]) < 4 * deviation
        assert (counts[0] > counts[4]) == hardest_first
    assert (sampler.target(0), sampler.target(50), sampler.target(1000)) == pytest.approx((0.9, 0.5, 0.1))


@given(
    streaks=st.lists(st.integers(-4, 4), min_size=1, max_size=12),
    since=st.integers(0, 30),
    solved=st.booleans(),
    unsolved=st.booleans(),
)
def test_what_is_always_or_never_solved_sleeps_until_it_is_tried_again(
    streaks: list[int], since: int, solved: bool, unsolved: bool
) -> None:
    measured = Measured(len(streaks))
    for problem, streak in enumerate(streaks):
        measured.note(problem, 0)
        for _ in range(abs(streak) or 1):
            measured.observe(problem, 0.5 if streak == 0 else float(streak > 0), 0)
    may_be = awake(SkipConfig(solved=solved, unsolved=unsolved, after=2, retry_steps=20), since, measured)
    asleep = [((solved and s >= 2) or (unsolved and s <= -2)) and since < 20 for s in streaks]
    if all(asleep):
        assert may_be.sum() == 1
    else:
        assert may_be.tolist() == [not one for one in asleep]


def test_a_problem_that_is_tried_again_is_asleep_while_its_group_is_out_and_stays_awake_once_it_varies() -> None:
    settings, measured = SkipConfig(unsolved=True, after=1, retry_steps=10), Measured(2)
    measured.note(0, 0)
    measured.observe(0, 0.0, 0)
    assert awake(settings, 9, measured).tolist() == [False, True]
    assert awake(settings, 10, measured).tolist() == [True, True]
    measured.note(0, 10)
    assert awake(settings, 11, measured).tolist() == [False, True]
    measured.observe(0, 0.5, 12)
    assert awake(settings, 12, measured).tolist() == [True, True]


@given(least=st.integers(2, 9), more=st.integers(1, 20), rate=st.floats(0.0, 1.0), odd=st.booleans())
def test_groups_are_largest_at_one_half_and_within_their_bounds(least: int, more: int, rate: float, odd: bool) -> None:
    if odd:
        least, more = 2 * least + 1, 2 * more
    bounds = AdaptiveGroupConfig(least=least, most=least + more)
    size = group_size(bounds, rate, 8, odd=odd)
    assert least <= size <= least + more
    assert not odd or size % 2 == 1
    assert size <= group_size(bounds, 0.5, 8, odd=odd) == least + more
    assert group_size(bounds, 0.0, 8, odd=odd) == group_size(bounds, 1.0, 8, odd=odd) == least
    assert group_size(bounds, float("nan"), 8, odd=odd) == group_size(None, rate, 8, odd=odd) == 8


def test_a_source_without_problems_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        Measured(0)
