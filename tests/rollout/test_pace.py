"""How many groups wait in the engine beyond those that fit."""

import pytest

from rollout.pace import AHEAD_S, Pace


@pytest.mark.parametrize("per_s", [0.1, 4.0, 100.0, 1000.0])
def test_as_many_wait_as_end_while_new_ones_are_claimed(per_s: float) -> None:
    pace, now_s = Pace(), 100.0
    for _ in range(int(20 * max(1.0, per_s))):
        now_s += 1 / per_s
        pace.count(1, now_s)
    assert pace.groups_ahead(now_s) == pytest.approx(max(1.0, per_s * AHEAD_S), rel=0.1, abs=1.0)


def test_one_waits_at_least_also_after_a_long_time_without_any() -> None:
    pace = Pace()
    assert pace.groups_ahead(0.0) == 1
    pace.count(10_000, 1.0)
    assert pace.groups_ahead(1.0) > 100
    assert pace.groups_ahead(60.0) == 1
