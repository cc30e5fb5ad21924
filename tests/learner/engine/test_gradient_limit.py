"""The limit on a gradient's norm, relative to recent ones."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from learner.engine.gradient_limit import LEAST, GradientLimit
from services.config.optimizer import OptimizerConfig

norms = st.floats(1e-4, 100.0)


def limit(**settings: float) -> GradientLimit:
    return GradientLimit(OptimizerConfig.model_validate({"max_grad_norm": 1.0, "max_grad_norm_ratio": 2.0} | settings))


def test_before_the_first_gradient_only_the_largest_norm_holds() -> None:
    assert limit().now == 1.0
    assert limit(max_grad_norm=0.25).now == 0.25


@given(norms)
def test_steady_gradients_are_left_alone_and_twice_as_long_is_the_limit(norm: float) -> None:
    watched = limit(max_grad_norm=1000.0)
    for _ in range(50):
        assert norm <= watched.now
        watched.observe(norm)
    assert watched.now == pytest.approx(2.0 * norm)


@given(st.lists(norms, max_size=20))
def test_the_largest_norm_holds_whatever_came_before(seen: list[float]) -> None:
    watched = limit(max_grad_norm=0.3)
    for norm in seen:
        watched.observe(norm)
    assert watched.now <= 0.3


@given(norms, st.floats(10.0, 1e6))
def test_one_long_gradient_raises_the_limit_by_a_tenth_and_no_more(norm: float, times: float) -> None:
    watched = limit(max_grad_norm=1e9)
    for _ in range(10):
        watched.observe(norm)
    before = watched.now
    watched.observe(norm * times)
    assert watched.now == pytest.approx(1.1 * before)


def test_gradients_that_grew_for_good_are_let_through_in_time() -> None:
    watched = limit(max_grad_norm=1000.0)
    watched.observe(1e-3)
    steps = 0
    while watched.now < 1.0:
        watched.observe(1.0)
        steps += 1
    assert 60 < steps < 70  # 1.1 to the power of 66 is 539


def test_a_gradient_of_nothing_says_nothing() -> None:
    watched = limit()
    watched.observe(0.0)
    assert watched.now == 1.0
    watched.observe(0.1)
    for _ in range(1000):
        watched.observe(0.0)
    assert watched.now == pytest.approx(0.2)


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_gradient_without_a_norm_says_nothing(norm: float) -> None:
    watched = limit()
    watched.observe(norm)
    assert watched.mean is None
    watched.observe(0.1)
    watched.observe(norm)
    assert watched.now == pytest.approx(0.2)


def test_the_limit_stays_above_what_clipping_itself_adds() -> None:
    watched = limit()
    for _ in range(1000):
        watched.observe(1e-9)
    assert watched.now == LEAST


@given(st.lists(norms, min_size=1, max_size=20), norms)
def test_it_goes_on_from_its_mean(seen: list[float], then: float) -> None:
    watched = limit()
    for norm in seen:
        watched.observe(norm)
    again = GradientLimit(OptimizerConfig(max_grad_norm=1.0), watched.mean)
    assert again.now == watched.now
    for one in (watched, again):
        one.observe(then)
    assert again.now == watched.now


def test_without_a_ratio_nothing_but_the_largest_norm_counts() -> None:
    watched = limit(max_grad_norm_ratio=0.0)
    watched.observe(1e-3)
    assert watched.now == 1.0


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_a_ratio_that_leaves_no_room_is_refused(ratio: float) -> None:
    with pytest.raises(ValidationError, match="use more than 1, or 0 for no such limit"):
        limit(max_grad_norm_ratio=ratio)
