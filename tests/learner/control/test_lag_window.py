import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.control.lag_window import LagWindow, observe
from services.config.control import LagControl

RATIOS = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=80)
CONTROL = st.builds(
    LagControl,
    enabled=st.just(True),
    target_ess_ratio=st.floats(0.2, 0.8),
    band=st.floats(0, 0.2),
    smoothing_steps=st.integers(1, 4),
    least=st.integers(0, 2),
)


def after(settings: LagControl, max_lag: int, ratios: list[float], start: LagWindow | None = None) -> list[LagWindow]:
    window, seen = start or LagWindow(max_lag), []
    for ratio in ratios:
        window = observe(settings, max_lag, window, ratio)
        seen.append(window)
    return seen


@given(CONTROL, st.integers(3, 64), RATIOS)
def test_the_window_stays_between_the_least_and_max_lag(
    settings: LagControl, max_lag: int, ratios: list[float]
) -> None:
    assert all(settings.least <= w.steps <= max_lag for w in after(settings, max_lag, ratios))


@given(CONTROL, st.integers(3, 64), st.floats(-1, 1))
def test_within_the_band_nothing_moves(settings: LagControl, max_lag: int, inside: float) -> None:
    ratio = settings.target_ess_ratio + 0.99 * inside * settings.band
    for start in (max_lag, settings.least, 3):
        assert {w.steps for w in after(settings, max_lag, [ratio] * 30, LagWindow(start))} == {start}


@pytest.mark.parametrize("bad", [0.0, 0.3, math.nan])
def test_bad_steps_narrow_it_to_the_least_and_good_ones_widen_it_to_max_lag(bad: float) -> None:
    settings = LagControl(enabled=True, least=1)
    narrowed = after(settings, 16, [bad] * 300)
    assert narrowed[-1].steps == 1
    widened = after(settings, 16, [1.0] * 300, narrowed[-1])
    assert widened[-1].steps == 16
    assert [w.steps for w in widened] == sorted(w.steps for w in widened)


@given(CONTROL, st.integers(3, 64), RATIOS)
def test_after_a_move_it_waits_until_what_was_issued_before_is_consumed(
    settings: LagControl, max_lag: int, ratios: list[float]
) -> None:
    before, moved_at, old = max_lag, None, 0
    for step, window in enumerate(after(settings, max_lag, ratios)):
        if window.steps != before:
            assert moved_at is None or step - moved_at > old
            moved_at, old, before = step, before, window.steps


def test_an_ess_that_follows_the_window_settles_without_swinging() -> None:
    """The ESS ratio falls by 0.03 a step of lag: 0.6 is at a window of about 13."""
    settings, window, seen = LagControl(enabled=True, target_ess_ratio=0.6, band=0.1), LagWindow(64), []
    for _ in range(1500):
        window = observe(settings, 64, window, max(0.0, 1 - 0.03 * window.steps))
        seen.append(window.steps)
    assert len(set(seen[-800:])) == 1
    assert 10 <= seen[-1] <= 17


@given(RATIOS)
def test_switched_off_it_never_moves(ratios: list[float]) -> None:
    assert {w.steps for w in after(LagControl(), 8, ratios)} <= {8}


@given(CONTROL, RATIOS, st.integers(0, 80))
def test_saved_and_resumed_is_uninterrupted(settings: LagControl, ratios: list[float], cut: int) -> None:
    whole = after(settings, 9, ratios)
    first = after(settings, 9, ratios[:cut])
    kept = LagWindow.from_dict(json.loads(json.dumps((first or [LagWindow(9)])[-1].to_dict())))
    assert after(settings, 9, ratios[cut:], kept) == whole[cut:]
