"""Where an answer is taken apart, and what is taken off around it."""

import re

import pytest

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.structure import (
    NAME,
    QUANTITY,
    bare,
    closes_at_end,
    name_of,
    related,
    separators_in,
    split,
)


def test_only_signs_outside_brackets_separate() -> None:
    assert split(re.compile(","), "(1, 2), 3") == ["(1, 2)", "3"]
    assert separators_in("(1, 2); 3 \\lor 4") == [";", "\\lor"]


def test_a_chain_of_relations_has_its_sides_and_signs() -> None:
    chain = related("0 < x \\le 2")
    assert chain is not None
    assert (chain.sides, chain.signs) == (("0", "x", "2"), ("<", "le"))


@pytest.mark.parametrize("text", ["5", "(x = 1)", "\\left", "\\leftarrow"])
def test_a_relation_inside_brackets_or_a_longer_command_is_none(text: str) -> None:
    assert related(text) is None


@pytest.mark.parametrize(("text", "expected"), [("5.", "5"), ("{{5}}", "5"), (" 5 ;", "5"), ("\\{5\\}", "\\{5\\}")])
def test_punctuation_and_braces_around_an_answer_are_taken_off(text: str, expected: str) -> None:
    assert bare(text) == expected


def test_braces_that_do_not_belong_together_stay() -> None:
    assert bare("{1}{2}") == "{1}{2}"


def test_an_answer_that_ends_in_dots_is_refused() -> None:
    with pytest.raises(Unreadable, match="goes on"):
        bare("1, 2, ..")


@pytest.mark.parametrize(("text", "closes"), [("(1)", True), ("(1)(2)", False), ("((1)", False)])
def test_the_bracket_that_opens_a_text_may_close_at_its_end(text: str, closes: bool) -> None:
    assert closes_at_end(text) is closes


@pytest.mark.parametrize("text", ["x", "x_1", "x_{12}", "f(x)", "f'", "\\theta"])
def test_a_name_is_one_variable_or_function(text: str) -> None:
    assert NAME.fullmatch(text)


@pytest.mark.parametrize("text", ["2", "x + y", "\\frac"])
def test_a_number_a_sum_and_a_command_are_not_names(text: str) -> None:
    assert not NAME.fullmatch(text)


@pytest.mark.parametrize("text", ["x", "f^{-1}(x)", "\\angle ABC", "\\text{the area}", "|AB|", "f(2)"])
def test_a_quantity_may_stand_before_an_equals_sign(text: str) -> None:
    assert QUANTITY.fullmatch(text)


@pytest.mark.parametrize("text", ["2", "2x", "x = 1"])
def test_an_expression_with_numbers_is_not_a_quantity(text: str) -> None:
    assert not QUANTITY.fullmatch(text)


def test_names_are_the_same_with_and_without_braces() -> None:
    assert name_of("x_{1}") == name_of("x _ 1") == "x_1"
