"""One expression: what it is read as, and what is refused."""

import time
from fractions import Fraction

import pytest
import sympy  # type: ignore[import-untyped]

from verifier.graders.math.equality import equal
from verifier.graders.math.expression import Unreadable, expression, fraction_of

X, Y = sympy.symbols("x y")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", Fraction(12)),
        ("-0.5", Fraction(-1, 2)),
        (".5", Fraction(1, 2)),
        ("1e3", Fraction(1000)),
        ("3/4", Fraction(3, 4)),
        ("-\\frac{3}{4}", Fraction(-3, 4)),
        ("2.5 \\cdot 10^{-3}", Fraction(1, 400)),
    ],
)
def test_a_plain_number_is_exact(text: str, number: Fraction) -> None:
    assert fraction_of(text) == number


@pytest.mark.parametrize("text", ["x", "\\sqrt{2}", "1 + 2", "", "."])
def test_anything_else_is_not_a_plain_number(text: str) -> None:
    assert fraction_of(text) is None


def test_a_division_by_zero_is_refused() -> None:
    with pytest.raises(Unreadable, match="zero"):
        fraction_of("1/0")


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("2(3)", sympy.Integer(6)),
        ("2x", 2 * X),
        ("x(y + 1)", X * (Y + 1)),
        ("1\\frac{1}{2}", sympy.Rational(3, 2)),
        ("1 1/2", sympy.Rational(3, 2)),
        ("0.\\overline{3}", sympy.Rational(1, 3)),
        ("0.1", sympy.Rational(1, 10)),
        ("\\sqrt{8}", 2 * sympy.sqrt(2)),
        ("5!!", sympy.Integer(15)),
        ("\\sin 30^\\circ", sympy.Rational(1, 2)),
        ("\\binom{5}{2}", sympy.Integer(10)),
        ("3i", 3 * sympy.I),
        ("\\infty", sympy.oo),
        ("e", sympy.E),
        ("\\gamma", expression("\\gamma")),
    ],
)
def test_latex_is_read_as_mathematics_means_it(latex: str, expected: sympy.Expr) -> None:
    assert equal(expression(latex), expected)


@pytest.mark.parametrize(
    ("latex", "why"),
    [
        ("", "empty"),
        ("3 4", "side by side"),
        ("1.2.3", "side by side"),
        ("2?", r"has '\?' in it"),
        ("\\heartsuit", "heartsuit"),
        ("x^{2}^{3}", "two exponents"),
        ("------1", "too many signs"),
        ("(" * 31 + "1" + ")" * 31, "too deep"),
        ("(1", "cannot be parsed"),
        ("5_2", "index"),
        ("\\infty + x", "infinity"),
        ("\\frac{1}{1 - 1}", "no exact value"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused_with_the_reason(latex: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        expression(latex)


@pytest.mark.parametrize("bomb", ["9^{9^{9}}", "(10^{10})!", "\\sum_{k=1}^{1000} k"])
def test_a_number_too_large_is_refused_before_it_is_worked_out(bomb: str) -> None:
    with pytest.raises(Unreadable, match=r"too large|too long"):
        expression(bomb)


def test_a_binomial_coefficient_too_large_is_refused_before_the_parser_works_it_out() -> None:
    for bomb in (r"\binom{2000000}{1000000}", r"\binom{10^6}{5 \cdot 10^5}", r"\binom{100000}{\binom{18}{7}}"):
        started = time.process_time()
        with pytest.raises(Unreadable, match="too large"):
            expression(bomb)
        assert time.process_time() - started < 1
    assert expression(r"\binom{10}{3}") == 120


def test_a_value_of_f_is_no_product() -> None:
    x = sympy.Symbol("x")
    assert expression("f(x + 1)") == sympy.Function("f")(x + 1)
