"""What stands behind a number: a unit, a noun, a percent sign, or something that changes the amount."""

import pytest

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.units import Measured, without_unit


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("5", "5", ""),
        ("5\\text{ cm}", "5", "cm"),
        ("5 centimeters", "5", "cm"),
        ("5\\text{ cm}^{2}", "5", "cm^2"),
        ("5\\text{ square meters}", "5", "m^2"),
        ("5\\text{ cubic feet}", "5", "ft^3"),
        ("5\\text{ km/h}", "5", "km/h"),
        ("5\\text{ miles per hour}", "5", "mi/h"),
        ("\\text{dollars}5", "5", "dollar"),
        ("-\\text{euros}5", "-5", "euro"),
        ("20^\\circ\\text{C}", "20", "celsius"),
        ("20^\\circ F", "20", "fahrenheit"),
    ],
)
def test_spellings_of_a_unit_have_one_name(text: str, number: str, unit: str) -> None:
    assert without_unit(text) == Measured(number, unit)


def test_a_noun_says_nothing() -> None:
    assert without_unit("12\\text{ apples}") == Measured("12")
    assert without_unit("12 apples") == Measured("12")


@pytest.mark.parametrize("text", ["5m", "5abc", "5 abc", "x y"])
def test_letters_that_may_be_a_product_are_not_a_unit(text: str) -> None:
    assert without_unit(text) == Measured(text)


def test_percent_and_degrees_are_kept_apart_from_units() -> None:
    assert without_unit("50\\%") == Measured("50", percent=True)
    assert without_unit("90^\\circ") == Measured("90", degrees=True)
    assert without_unit("90\\text{ degrees}") == Measured("90", degrees=True)


def test_degrees_inside_a_function_belong_to_it() -> None:
    assert without_unit("\\sin 30^\\circ") == Measured("\\sin 30^\\circ")


@pytest.mark.parametrize(
    "text",
    ["5\\text{ million}", "5\\text{ dozen}", "5\\text{ tenths}", "5\\text{ or 6}", "5\\text{ k}", "5\\text{ squared}"],
)
def test_words_that_change_the_amount_are_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="behind the answer"):
        without_unit(text)
