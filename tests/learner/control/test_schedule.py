import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.control.schedule import scheduled_learning_rate
from services.config.optimizer import OptimizerConfig


@given(st.integers(0, 20), st.integers(21, 200), st.floats(0, 1))
def test_rises_to_the_full_rate_then_falls_to_the_final_one(warmup: int, steps: int, final: float) -> None:
    settings = OptimizerConfig(learning_rate=2.0, schedule="linear", warmup_steps=warmup, final_fraction=final)
    rates = [scheduled_learning_rate(settings, step, steps) for step in range(steps)]
    assert all(rate > 0 for rate in rates[:-1])
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup] == pytest.approx(2.0)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    if steps - 1 > warmup:
        assert rates[-1] == pytest.approx(2.0 * final)
    assert scheduled_learning_rate(settings, steps + 5, steps) == pytest.approx(rates[-1])


def test_constant_stays() -> None:
    settings = OptimizerConfig(learning_rate=3.0)
    assert {scheduled_learning_rate(settings, step, 10) for step in range(20)} == {3.0}
