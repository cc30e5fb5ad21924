"""When an answer states what the reference states. Pairs are read first, as the grader does."""

import pytest

from verifier.graders.math.compare import Percent, Rules
from verifier.graders.math.read import read


def same(reference: str, answer: str, tolerance: float = 0.0, percent: Percent = "either") -> bool:
    return Rules(tolerance, percent).same(read(reference), read(answer))


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("1/2", "0.5"),
        ("1, 2", "2, 1"),
        ("\\{1, 2\\}", "2, 1"),
        ("\\{1, 1, 2\\}", "\\{1, 2\\}"),
        ("(1, 2)", "1, 2"),
        ("(1, 2)", "x = 1, y = 2"),
        ("\\{5\\}", "5"),
        ("5\\text{ cm}", "5"),
        ("5", "5\\text{ cm}"),
        ("90^\\circ", "90"),
        ("90^\\circ", "\\frac{\\pi}{2}"),
        ("50\\%", "0.5"),
        ("50\\%", "50"),
        ("101_2", "101"),
        ("1:2", "2:4"),
        ("1:2", "0.5"),
        ("x > 2", "(2, \\infty)"),
        ("(1, 2)", "1 < x < 2"),
        ("x = 5", "5"),
        ("5", "x = 5"),
        ("x + y = 1", "2x + 2y = 2"),
        ("y = 2x", "f(x) = 2x"),
        ("x + y \\le 3", "3 \\ge y + x"),
        ("[0, 1] \\cup [2, 3]", "[0, 1], [2, 3]"),
        ("x = 1, y = 2", "(x, y) = (1, 2)"),
    ],
)
def test_an_answer_may_say_the_same_in_another_form(reference: str, answer: str) -> None:
    assert same(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("1, 2", "1"),
        ("1", "1, 2"),
        ("1, 1, 2", "1, 2, 2"),
        ("(1, 2)", "(2, 1)"),
        ("\\{\\{1\\}, 2\\}", "\\{1, 2\\}"),
        ("5\\text{ cm}", "5\\text{ m}"),
        ("0.5", "0.5\\%"),
        ("101_2", "5"),
        ("101_2", "101_3"),
        ("12:30", "06:15"),
        ("[1, 2)", "[1, 2]"),
        ("x > 2", "y > 2"),
        ("x + y = 1", "1"),
        ("x = 3", "y = 3"),
        ("x = 1, y = 2", "x = 2, y = 1"),
        ("[0, 2], [1, 3]", "[0, 3]"),
        ("x + y < 3", "x + y \\le 3"),
        ("\\text{yes}", "\\text{no}"),
        ("1:2", "2:1"),
        ("\\emptyset", "0"),
    ],
)
def test_an_answer_that_contradicts_or_leaves_something_out_is_not_the_same(reference: str, answer: str) -> None:
    assert not same(reference, answer)


def test_a_list_may_repeat_an_item_that_the_reference_has_once() -> None:
    assert same("1, 2", "1, 1, 2")
    assert not same("1, 1, 2", "1, 2")


def test_a_tolerance_holds_for_numbers_alone() -> None:
    assert same("\\pi", "3.14", tolerance=0.001)
    assert not same("\\pi", "3.1", tolerance=0.001)
    assert not same("x", "1.0001x", tolerance=0.001)


@pytest.mark.parametrize(
    ("percent", "as_share", "as_number"), [("either", True, True), ("value", True, False), ("unit", False, True)]
)
def test_the_rule_for_percent_says_what_a_missing_sign_means(percent: Percent, as_share: bool, as_number: bool) -> None:
    assert same("50\\%", "0.5", percent=percent) is as_share
    assert same("50\\%", "50", percent=percent) is as_number
