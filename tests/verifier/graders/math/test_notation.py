"""Each rule on its example, the order of the rules, and what comes before and after them."""

import pytest

from verifier.graders.math.notation import depths, plain
from verifier.graders.math.notation_rules import RULES, Rule

BY_NAME = {rule.name: rule for rule in RULES}
ORDERS = [(rule, BY_NAME[later]) for rule in RULES for later in rule.before]


def without(rule: Rule, text: str) -> str:
    for other in RULES:
        if other is not rule:
            text = other.apply(text)
    return text.strip()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_rewrites_its_example(rule: Rule) -> None:
    assert rule.apply(rule.example) == rule.becomes


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_other_rule_does_the_work_of_one(rule: Rule) -> None:
    assert without(rule, rule.example) != plain(rule.example)


@pytest.mark.parametrize(("rule", "later"), ORDERS, ids=lambda rule: rule.name)
def test_the_order_of_two_rules_matters_where_the_first_says_so(rule: Rule, later: Rule) -> None:
    assert RULES.index(rule) < RULES.index(later)
    assert later.apply(rule.apply(rule.example)) != rule.apply(later.apply(rule.example))


def test_names_of_rules_are_unique() -> None:
    assert len(BY_NAME) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_is_plain_stays_as_it_is(rule: Rule) -> None:
    once = plain(rule.example)
    assert plain(once) == once


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("x ≤ 2", "x \\le 2"),
        ("½", "\\frac{1}{2}"),
        ("√2", "\\sqrt{2}"),
        ("√(x+1)", "\\sqrt{x+1}"),
        ("x²", "x^{2}"),
        ("x⁻¹", "x^{-1}"),
        ("a₁", "a_{1}"),
        ("１２", "12"),
        ("90°", "90^\\circ"),
    ],
)
def test_a_character_outside_ascii_becomes_a_command_or_its_plain_form(latex: str, expected: str) -> None:
    assert plain(latex) == expected


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("1,234", "1234"),
        ("1 234 567", "1234567"),
        ("(1,234)", "(1,234)"),
        ("(1 234)", "(1234)"),
        ("1,23", "1,23"),
        ("0.1,234", "0.1,234"),
    ],
)
def test_thousands_are_joined_where_a_comma_cannot_separate(latex: str, expected: str) -> None:
    assert plain(latex) == expected


@pytest.mark.parametrize(("latex", "expected"), [("\\$5", "\\text{dollars}5"), ("$5$", "5"), ("€5", "\\text{euros}5")])
def test_money_is_a_unit_and_a_dollar_sign_alone_delimits(latex: str, expected: str) -> None:
    assert plain(latex) == expected


def test_a_doubled_backslash_is_one_but_not_between_rows() -> None:
    assert plain("\\\\frac{1}{2}") == "\\frac{1}{2}"
    assert "\\\\" in plain("\\begin{pmatrix} 1 \\\\x \\end{pmatrix}")


def test_depth_counts_the_brackets_that_are_open_at_each_character() -> None:
    assert depths("a(b[c]d)e") == [0, 0, 1, 1, 2, 1, 1, 0, 0]
    assert depths("]1[") == [-1, -1, -1]
