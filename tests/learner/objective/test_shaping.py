"""Shaping of rewards: each rule as its paper has it, and together in their order."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.objective.shaping import budget_factor, efficiency_factor, shaped_rewards
from services.config.shaping import BudgetConfig, EfficiencyConfig, OverlongConfig, ShapingConfig
from services.overlong import overlong_punishment

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=12)
FREE = np.inf


def shaped(
    settings: ShapingConfig, rewards: list[float], tokens: list[int], caps: list[float] | None = None
) -> list[float]:
    found: list[float] = shaped_rewards(
        settings,
        np.array(rewards),
        correct=np.array(rewards) > 0,
        tokens=np.array(tokens),
        capped_at=np.array(caps or [FREE] * len(rewards)),
        max_tokens=100,
    ).tolist()
    return found


def test_overlong_is_equation_13_of_dapo() -> None:
    """With L_max = 20 and L_cache = 4: 0 up to 16, then (16 - |y|) / 4, and -1 from 20 on."""
    found = [overlong_punishment(tokens, max_tokens=20, buffer_tokens=4) for tokens in (1, 16, 17, 18, 20, 21)]
    assert found == [0.0, 0.0, -0.25, -0.5, -1.0, -1.0]
    settings = ShapingConfig(overlong=OverlongConfig(buffer_tokens=50, penalty=2.0))
    assert shaped(settings, [1.0, 0.0, 1.0], [50, 75, 100]) == [1.0, -1.0, -1.0]


def test_a_budget_is_equation_2_of_l1() -> None:
    settings = BudgetConfig(tokens=50, slope=0.01)
    assert budget_factor(settings, np.array([1, 50, 75, 100, 120])).tolist() == pytest.approx(
        [0.99, 0.5, 0.25, 0.0, 0.0]
    )
    assert shaped(ShapingConfig(budget=settings), [1.0, 0.0], [50, 50]) == [0.5, 0.0]


def test_efficiency_is_the_sigmoid_of_the_standardized_length_of_the_correct() -> None:
    tokens, correct = np.array([10, 20, 30, 1000]), np.array([True, True, True, False])
    deviation = (200 / 3) ** 0.5
    expected = [1 - 0.4 / (1 + np.exp(-(length - 20) / deviation)) for length in (10, 20, 30)]
    found = efficiency_factor(EfficiencyConfig(strength=0.4), tokens, correct)
    assert found[:3].tolist() == pytest.approx(expected, rel=1e-12)
    assert shaped(
        ShapingConfig(efficiency=EfficiencyConfig(strength=0.4)), [1.0, 1.0, 1.0, 0.0], [10, 20, 30, 1000]
    ) == (pytest.approx([*expected, 0.0], rel=1e-12))


@given(tokens=LENGTHS, strength=st.floats(0.01, 0.99), data=st.data())
def test_among_the_correct_the_shorter_earns_more_and_any_correct_more_than_none(
    tokens: list[int], strength: float, data: st.DataObject
) -> None:
    rewards = [float(data.draw(st.booleans())) for _ in tokens]
    found = shaped(ShapingConfig(efficiency=EfficiencyConfig(strength=strength)), rewards, tokens)
    right = sorted((length, value) for length, value, reward in zip(tokens, found, rewards, strict=True) if reward)
    assert all(value > 0.0 for _, value in right)
    for (_, more), (_, less) in itertools.pairwise(right):
        assert more >= less
    assert [value for value, reward in zip(found, rewards, strict=True) if not reward] == [0.0] * rewards.count(0.0)


@given(rewards=st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=8), data=st.data())
def test_without_rules_rewards_are_the_verifiers(rewards: list[float], data: st.DataObject) -> None:
    tokens = [data.draw(st.integers(1, 100)) for _ in rewards]
    assert shaped(ShapingConfig(), rewards, tokens) == rewards


def test_what_lacks_the_form_earns_at_most_the_gate_and_does_not_count_as_correct() -> None:
    settings = ShapingConfig(efficiency=EfficiencyConfig(strength=0.5), overlong=OverlongConfig(buffer_tokens=10))
    found = shaped(settings, [1.0, 1.0, -1.0], [10, 10, 95], [FREE, 0.1, 0.1])
    assert found == pytest.approx([0.75, 0.1, -1.5])  # one correct response alone: its factor is 1 - strength / 2
