"""What the forms of an answer know of themselves."""

import sympy  # type: ignore[import-untyped]

from verifier.graders.math.forms import RatioOf, SetOf, Value, Words


def numbers(*values: int, unit: str = "") -> tuple[Value, ...]:
    return tuple(Value(sympy.Integer(value), unit) for value in values)


def test_a_ratio_has_its_numbers_as_terms() -> None:
    assert RatioOf(numbers(1, 2), clock=False).terms() == [1, 2]


def test_a_ratio_of_zeros_has_no_terms() -> None:
    assert RatioOf(numbers(0, 0), clock=False).terms() == []


def test_a_ratio_of_different_units_has_no_terms() -> None:
    assert RatioOf(numbers(3, unit="cm") + numbers(4, unit="m"), clock=False).terms() == []


def test_a_ratio_with_words_in_it_has_no_terms() -> None:
    assert RatioOf((*numbers(1), Words("two")), clock=False).terms() == []


def test_forms_are_equal_by_what_they_hold() -> None:
    assert SetOf(numbers(1, 2)) == SetOf(numbers(1, 2))
    assert SetOf(numbers(1, 2)) != SetOf(numbers(2, 1))
