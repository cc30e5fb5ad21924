"""Whether two expressions are equal."""

import pytest
import sympy  # type: ignore[import-untyped]

from verifier.graders.math.equality import equal, near
from verifier.graders.math.expression import expression


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(x + 1)^{2}", "x^{2} + 2x + 1"),
        ("\\sin^{2} x + \\cos^{2} x", "1"),
        ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"),
        ("\\sqrt[3]{-8}", "-2"),
        ("\\log 100", "2"),
    ],
)
def test_expressions_are_equal_when_their_values_are(one: str, other: str) -> None:
    assert equal(expression(one), expression(other))


@pytest.mark.parametrize(("one", "other"), [("x", "y"), ("x^{2}", "x"), ("\\pi", "3.14159"), ("\\sqrt{x^{2}}", "x")])
def test_expressions_with_other_values_are_not_equal(one: str, other: str) -> None:
    assert not equal(expression(one), expression(other))


def test_near_is_relative_to_the_first() -> None:
    assert near(sympy.Integer(100), sympy.Integer(101), 0.01)
    assert not near(sympy.Integer(100), sympy.Integer(102), 0.01)
    assert not near(sympy.I, sympy.I, 0.01)


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        ("e^{-1000}", "0", False),
        ("1 + e^{-1000}", "1", False),
        ("2^{-5000}", "0", False),
        ("e^{-1000}", r"\frac{1}{e^{1000}}", True),
        ("e^{200}", "(e^{100})^{2}", True),
    ],
)
def test_a_number_too_small_for_the_digits_is_still_a_number(one: str, other: str, is_equal: bool) -> None:
    assert equal(expression(one), expression(other)) is is_equal
