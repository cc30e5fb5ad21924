import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.objective.ess import ess_ratio, learning_rate_factor
from services.config.control import EssConfig

LOG_WEIGHTS = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=50).map(
    lambda x: torch.tensor(x, dtype=torch.float64)
)
SMALL = st.lists(st.floats(-20, 20), min_size=2, max_size=50).map(lambda x: torch.tensor(x, dtype=torch.float64))


@given(LOG_WEIGHTS)
def test_is_finite_and_between_one_over_b_and_one(log_weight: torch.Tensor) -> None:
    ratio = ess_ratio(log_weight)
    assert 1 / len(log_weight) * (1 - 1e-9) <= ratio <= 1.0


@given(st.floats(-1e4, 1e4), st.integers(1, 100))
def test_is_one_for_equal_weights(value: float, count: int) -> None:
    assert ess_ratio(torch.full((count,), value, dtype=torch.float64)) == pytest.approx(1.0, rel=1e-10)


@given(SMALL.filter(lambda x: float(x.max() - x.min()) > 0.01))
def test_is_less_than_one_for_unequal_weights(log_weight: torch.Tensor) -> None:
    assert ess_ratio(log_weight) < 1.0


@given(SMALL, st.floats(-1e3, 1e3))
def test_ignores_a_common_factor(log_weight: torch.Tensor, shift: float) -> None:
    assert ess_ratio(log_weight + shift) == pytest.approx(ess_ratio(log_weight), rel=1e-8)


@given(SMALL, st.randoms())
def test_ignores_order(log_weight: torch.Tensor, random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(log_weight)))
    random.shuffle(order)
    assert ess_ratio(log_weight[order]) == pytest.approx(ess_ratio(log_weight), rel=1e-12)


@given(SMALL, st.floats(-5, 5))
def test_truncation_never_lowers_it(log_weight: torch.Tensor, log_cap: float) -> None:
    assert ess_ratio(log_weight.clamp(max=log_cap)) >= ess_ratio(log_weight) * (1 - 1e-9)


@given(SMALL)
def test_agrees_with_the_definition(log_weight: torch.Tensor) -> None:
    w = log_weight.exp()
    assert ess_ratio(log_weight) == pytest.approx(float(w.sum() ** 2 / w.square().sum() / len(w)), rel=1e-9)


@pytest.mark.parametrize("bad", [[], [math.nan, 0.0], [math.inf, 0.0], [-math.inf, 0.0]])
def test_empty_or_non_finite_is_nan(bad: list[float]) -> None:
    assert math.isnan(ess_ratio(torch.tensor(bad, dtype=torch.float64)))


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.floats(0.01, 1), st.floats(0, 1))
def test_the_factor_is_monotone_bounded_and_floored(a: float, b: float, full: float, floor: float) -> None:
    settings = EssConfig(full_ratio=full, floor=floor)
    low, high = (learning_rate_factor(r, settings) for r in sorted((a, b)))
    assert floor <= low <= high <= 1.0


@pytest.mark.parametrize("settings", [EssConfig(), EssConfig(rule="linear", floor=0.5), EssConfig(enabled=False)])
@pytest.mark.parametrize(("ratio", "full"), [(math.nan, None), (math.nan, 0.0), (0.5, math.nan), (math.inf, None)])
def test_the_factor_of_what_is_not_a_number_is_zero(settings: EssConfig, ratio: float, full: float | None) -> None:
    assert learning_rate_factor(ratio, settings, full) == 0.0


def test_the_factor_is_the_square_root() -> None:
    assert learning_rate_factor(0.25, EssConfig(floor=0.1)) == 0.5
    assert learning_rate_factor(0.25, EssConfig(full_ratio=0.25)) == 1.0
    assert learning_rate_factor(1e-9, EssConfig(floor=0.1)) == 0.1
    assert learning_rate_factor(1e-9, EssConfig(enabled=False)) == 1.0
