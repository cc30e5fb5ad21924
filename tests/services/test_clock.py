"""A deadline says how much is left, or who was late by how much."""

import pytest

from services.clock import Deadline, now_s
from services.errors import DeadlineExceeded


def test_the_seconds_left_count_down() -> None:
    deadline = Deadline("scored groups", at_s=100.0)
    assert deadline.remaining_s(at_s=97.5) == 2.5


@pytest.mark.parametrize("at_s", [100.0, 103.0])
def test_a_deadline_that_passed_names_what_was_awaited(at_s: float) -> None:
    with pytest.raises(DeadlineExceeded, match=f"waiting for scored groups, {at_s - 100:.1f} s past its deadline"):
        Deadline("scored groups", at_s=100.0).remaining_s(at_s)


def test_a_deadline_is_counted_from_now() -> None:
    assert 9.0 < Deadline.after(10.0, "the test").remaining_s() <= 10.0
    assert Deadline.after(10.0, "the test").at_s >= now_s() + 9.0
