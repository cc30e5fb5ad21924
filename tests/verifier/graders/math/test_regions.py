"""Sets of real numbers: their algebra, and when two of them are equal."""

import pytest
import sympy  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.regions import REALS, Region, difference, intersection, points, same, span, union

WHOLE = st.integers(-5, 5)


@st.composite
def spans(draw: st.DrawFn) -> Region:
    low = draw(WHOLE)
    high = draw(st.integers(low + 1, low + 6))
    return span(sympy.Integer(low), sympy.Integer(high), low_open=draw(st.booleans()), high_open=draw(st.booleans()))


def interval(low: int, high: int, brackets: str = "()") -> Region:
    ends = {"low_open": brackets[0] == "(", "high_open": brackets[1] == ")"}
    return span(sympy.Integer(low), sympy.Integer(high), **ends)


def test_a_closed_and_an_open_end_differ() -> None:
    assert not same(interval(1, 2, "[)"), interval(1, 2, "()"))
    assert same(interval(1, 2, "[)"), interval(1, 2, "[)"))


def test_intervals_that_touch_are_one() -> None:
    assert same(union(interval(1, 2, "[)"), interval(2, 3, "[]")), interval(1, 3, "[]"))


def test_a_missing_point_keeps_two_intervals_apart() -> None:
    assert not same(union(interval(1, 2), interval(2, 3)), interval(1, 3))
    assert same(difference(interval(1, 3), points([sympy.Integer(2)])), union(interval(1, 2), interval(2, 3)))


def test_a_point_is_a_closed_interval_of_no_length() -> None:
    assert same(points([sympy.Integer(1)]), interval(1, 1, "[]"))


def test_equal_ends_may_be_written_in_two_ways() -> None:
    one = span(sympy.Integer(0), sympy.sqrt(8), low_open=True, high_open=True)
    other = span(sympy.Integer(0), 2 * sympy.sqrt(2), low_open=True, high_open=True)
    assert same(one, other)


def test_an_end_at_infinity_is_always_open() -> None:
    assert same(span(-sympy.oo, sympy.oo, low_open=False, high_open=False), REALS)


@pytest.mark.parametrize("brackets", ["()", "[)", "(]"])
def test_an_interval_without_length_must_hold_its_ends(brackets: str) -> None:
    with pytest.raises(Unreadable, match="ends before it begins"):
        interval(1, 1, brackets)


def test_ends_that_are_not_real_are_refused() -> None:
    with pytest.raises(Unreadable, match="not real"):
        union(interval(0, 1), points([sympy.I]))


@settings(max_examples=60, deadline=None)
@given(spans(), spans())
def test_the_algebra_of_sets_holds(one: Region, other: Region) -> None:
    assert same(union(one, other), union(other, one))
    assert same(union(difference(one, other), intersection(one, other)), one)
    assert difference(one, one) == ()
    assert same(intersection(one, REALS), one)
