"""Inequalities that are solved, and those that stay differences."""

import pytest
import sympy  # type: ignore[import-untyped]

from verifier.graders.math import regions
from verifier.graders.math.expression import Unreadable
from verifier.graders.math.forms import Order, Span
from verifier.graders.math.inequality import inequality, solved
from verifier.graders.math.regions import REALS, Region

X = sympy.Symbol("x")


def interval(low: object, high: object, *, low_open: bool = True, high_open: bool = True) -> Region:
    return regions.span(sympy.sympify(low), sympy.sympify(high), low_open=low_open, high_open=high_open)


@pytest.mark.parametrize(
    ("sides", "signs", "region"),
    [
        (("x", "2"), (">",), interval(2, sympy.oo)),
        (("x", "2"), ("le",), interval(-sympy.oo, 2, high_open=False)),
        (("-2x", "4"), ("<",), interval(-2, sympy.oo)),
        (("1", "x", "3"), ("<", "le"), interval(1, 3, high_open=False)),
        (("2", "3x + 1"), ("ge",), interval(-sympy.oo, sympy.Rational(1, 3), high_open=False)),
        (("|x - 1|", "2"), ("<",), interval(-1, 3)),
        (("x", "\\infty"), ("<",), REALS),
    ],
)
def test_a_linear_inequality_is_solved(sides: tuple[str, ...], signs: tuple[str, ...], region: Region) -> None:
    answer = inequality(sides, signs)
    assert isinstance(answer, Span)
    assert answer.name == "x"
    assert regions.same(answer.region, region)


def test_not_equal_leaves_one_point_out() -> None:
    answer = inequality(("x", "2"), ("ne",))
    assert isinstance(answer, Span)
    assert regions.same(answer.region, regions.union(interval(-sympy.oo, 2), interval(2, sympy.oo)))


def test_an_absolute_value_above_a_bound_has_two_intervals() -> None:
    answer = inequality(("|x|", "1"), ("ge",))
    assert isinstance(answer, Span)
    outside = interval(-sympy.oo, -1, high_open=False), interval(1, sympy.oo, low_open=False)
    assert regions.same(answer.region, regions.union(*outside))


def test_two_variables_stay_a_difference_below_zero() -> None:
    x, y = sympy.symbols("x y")
    assert inequality(("x + y", "3"), ("le",)) == Order((x + y - 3,), (False,))
    assert inequality(("3", "x + y"), (">",)) == Order((x + y - 3,), (True,))


def test_what_is_not_linear_stays_a_difference() -> None:
    assert inequality(("x^{2}", "4"), ("<",)) == Order((X**2 - 4,), (True,))


def test_the_value_of_a_function_counts_as_a_variable() -> None:
    answer = inequality(("f(x)", "0"), (">",))
    assert isinstance(answer, Span)
    assert answer.name == "f(x)"


@pytest.mark.parametrize(
    ("sides", "signs"), [(("x + y", "0"), ("ne",)), (("x", "\\infty"), (">",)), (("x", "-\\infty"), ("ne",))]
)
def test_an_inequality_that_says_nothing_readable_is_refused(sides: tuple[str, ...], signs: tuple[str, ...]) -> None:
    with pytest.raises(Unreadable, match="inequality"):
        inequality(sides, signs)


def test_what_has_no_slope_is_not_solved() -> None:
    assert solved(X**2, "<", sympy.Integer(1), X) is None
