"""Rewards and advantages of single turns."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.objective.turns import (
    spread_over_tokens,
    token_turn_advantages,
    turn_advantages,
    turn_returns,
    with_outcome,
)
from services.config.advantage import AdvantageConfig


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def whole(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_a_return_is_what_follows_in_the_same_conversation() -> None:
    reward, sequence = numbers(1, 2, 4, 8, 16), whole(0, 0, 0, 1, 1)
    assert turn_returns(reward, sequence).tolist() == [7, 6, 4, 24, 16]
    assert turn_returns(reward, sequence, 0.5).tolist() == [3, 4, 4, 16, 16]
    assert turn_returns(reward, sequence, 0.0).tolist() == reward.tolist()


def test_turns_are_compared_with_the_same_turn_of_their_group() -> None:
    # Conversations 0 and 1 are of one group, 2 and 3 of another; the third turn of 0 is the only third turn of its group.
    value, sequence = numbers(1, 5, 9, 3, 7, 10, 20), whole(0, 0, 0, 1, 1, 2, 3)
    found = turn_advantages(value, sequence, whole(0, 0, 1, 1))
    assert found.tolist() == [-1, -1, 0, 1, 1, -5, 5]


@given(
    turns=st.lists(st.integers(1, 4), min_size=2, max_size=8),
    seed=st.integers(0, 1000),
)
def test_one_turn_each_is_the_mean_baseline_and_advantages_of_a_turn_add_up_to_zero(
    turns: list[int], seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    sequence = torch.repeat_interleave(torch.arange(len(turns)), torch.tensor(turns))
    value = torch.rand(len(sequence), generator=draw, dtype=torch.float64)
    found = turn_advantages(value, sequence, torch.zeros(len(turns), dtype=torch.int64))
    number = torch.cat([torch.arange(count) for count in turns])
    for turn in range(int(number.max()) + 1):
        assert float(found[number == turn].sum()) == pytest.approx(0.0, abs=1e-12)
    if set(turns) == {1}:
        assert found.tolist() == pytest.approx((value - value.mean()).tolist(), abs=1e-12)


def test_turns_that_earned_the_same_have_no_advantage_whatever_their_means_rounding() -> None:
    found = turn_advantages(numbers(0.1, 0.1, 0.1), whole(0, 1, 2), whole(0, 0, 0), "population_std")
    assert found.tolist() == [0, 0, 0]


Talk = list[tuple[int, float]]
"""Tokens and reward of each turn."""
TALKS = st.lists(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.0, 0.25, 1.0, -0.5])), min_size=1, max_size=4),
    min_size=2,
    max_size=6,
)


def by_hand(talks: list[Talk], group: list[int], discount: float, deviation: bool) -> list[float]:
    """The formula, turn by turn in plain numbers."""
    returns = [
        [
            sum(discount ** (later - turn) * talk[later][1] for later in range(turn, len(talk)))
            for turn in range(len(talk))
        ]
        for talk in talks
    ]
    found = []
    for i, talk in enumerate(talks):
        for turn, (tokens, _) in enumerate(talk):
            others = [own[turn] for own, g in zip(returns, group, strict=True) if g == group[i] and turn < len(own)]
            mean = math.fsum(others) / len(others)
            above = returns[i][turn] - mean if max(others) > min(others) else 0.0
            if deviation and above:
                above /= math.sqrt(sum((x - mean) ** 2 for x in others) / (len(others) - 1)) + 1e-6
            found += [above] * tokens
    return found


@given(talks=TALKS, discount=st.sampled_from([1.0, 0.9, 0.0]), deviation=st.booleans())
def test_each_token_has_the_advantage_that_the_formula_gives_its_turn(
    talks: list[Talk], discount: float, deviation: bool
) -> None:
    group = [i % 2 for i in range(len(talks))]
    rows = [
        (number, reward, i)
        for i, talk in enumerate(talks)
        for number, (tokens, reward) in enumerate(talk)
        for _ in range(tokens)
    ]
    settings = AdvantageConfig.model_validate(
        {"baseline": "mean", "normalize": "sample_std" if deviation else "none", "turns": {"discount": discount}}
    )
    turn, reward, sequence = torch.tensor(rows, dtype=torch.float64).unbind(1)
    found = token_turn_advantages(turn.long(), reward, sequence.long(), torch.tensor(group), settings)
    assert found.tolist() == pytest.approx(by_hand(talks, group, discount, deviation), rel=1e-5, abs=1e-7)


def test_the_outcome_of_a_conversation_is_added_to_each_of_its_tokens() -> None:
    assert with_outcome(torch.tensor([1.0, 2, 3]), torch.tensor([10.0, 10, 20]), 0.5).tolist() == [6, 7, 13]


@pytest.mark.parametrize("baseline", ["minimum_variance", "minimum_variance_exact", "positives"])
def test_a_baseline_that_turns_cannot_stand_beside_is_refused(baseline: str) -> None:
    with pytest.raises(ValueError, match=f'baseline = "mean" for example, not "{baseline}"'):
        AdvantageConfig.model_validate({"baseline": baseline, "turns": {}})
    with pytest.raises(ValueError, match='normalize = "none", "sample_std" or "population_std", not "mean"'):
        AdvantageConfig.model_validate({"baseline": "mean", "normalize": "mean", "turns": {}})


def test_a_turns_value_stands_at_each_of_its_tokens() -> None:
    assert spread_over_tokens(numbers(1, 2, 3), whole(2, 2, 5)).tolist() == [1, 1, 3, 3, 3]
    assert spread_over_tokens(numbers(), whole()).tolist() == []


def test_what_cannot_be_turns_is_refused() -> None:
    with pytest.raises(ValueError, match="one after the other"):
        spread_over_tokens(numbers(1, 2), whole(3, 1))
    with pytest.raises(ValueError, match="stand together"):
        turn_returns(numbers(1, 2), whole(1, 0))
    with pytest.raises(ValueError, match="between 0 and 1"):
        turn_returns(numbers(1), whole(0), 1.5)
    assert turn_advantages(numbers(), whole(), whole()).tolist() == []
