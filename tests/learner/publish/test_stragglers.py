"""When the wait for those that are late ends, and for whom."""

import pytest

from learner.publish.stragglers import AS_USUAL, HELD_UP_S, LATE_S, Stragglers

FOUR = ("a", "b", "c", "d")


def asked(*answered: str, usual_s: float | None = None) -> Stragglers:
    """A question of time 0; answered: those who have answered at time 1."""
    stragglers = Stragglers(FOUR, 5.0, asked_s=0.0, usual_s=usual_s)
    for each in answered:
        stragglers.answered(each, 1.0)
    return stragglers


@pytest.mark.parametrize(
    ("answered", "gone", "quiet", "after_s", "left_behind"),
    [
        ("abc", "d", "d", 0.1, "d"),
        ("abc", "", "d", LATE_S - 0.1, ""),
        ("abc", "", "d", LATE_S + 0.1, "d"),
        ("abc", "", "", LATE_S + 0.1, ""),
        ("abc", "", "", 5.1, "d"),
        ("ab", "", "d", LATE_S + 0.1, ""),  # c may be late for another reason
        ("ab", "d", "cd", LATE_S + 0.1, "cd"),
        ("a", "", "bcd", LATE_S + 0.1, ""),
        ("abcd", "", "", 100.0, ""),
    ],
)
def test_a_member_is_left_behind_at_once_if_it_is_gone_soon_if_it_does_not_renew_and_else_when_patience_ends(
    answered: str, gone: str, quiet: str, after_s: float, left_behind: str
) -> None:
    assert asked(*answered).to_leave_behind(gone, quiet, 1.0 + after_s) == set(left_behind)


@pytest.mark.parametrize(("gone", "quiet"), [("d", "d"), ("", "d")])
def test_a_member_that_holds_the_others_up_is_named_once_the_question_takes_longer_than_usual(
    gone: str, quiet: str
) -> None:
    stragglers = asked("a", usual_s=2.0)
    end_s = AS_USUAL * 2.0 + LATE_S
    assert stragglers.to_leave_behind(gone, quiet, end_s - 0.1) == set()
    assert stragglers.to_leave_behind(gone, quiet, end_s + 0.1) == {"d"}


def test_where_it_is_not_known_what_is_usual_the_others_get_time_from_when_the_member_went() -> None:
    stragglers = asked("a")
    assert stragglers.to_leave_behind("", "", 9.0) == set()
    assert stragglers.to_leave_behind("d", "d", 10.0) == set()
    assert stragglers.to_leave_behind("d", "d", 10.0 + HELD_UP_S - 0.1) == set()
    assert stragglers.to_leave_behind("d", "d", 10.0 + HELD_UP_S + 0.1) == {"d"}


def test_where_nobody_renews_only_those_that_are_gone_count() -> None:
    nobody_answered = asked(usual_s=0.1)
    assert nobody_answered.to_leave_behind("", FOUR, 100.0) == set()
    assert nobody_answered.to_leave_behind("b", FOUR, 100.0) == {"b"}
