"""The calculator computes numbers, bounds what it computes, and says in words what it does not."""

import pytest

from rollout.environments.tools.calculator import compute
from rollout.environments.tools.function import ToolError


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("-7 // 2", -4),
        ("7 % 4", 3),
        ("2 ** 10", 1024),
        ("2^10", 1024),
        ("1 / 4", 0.25),
        ("sqrt(16) + abs(-3)", 7.0),
        ("max(3, 4, 5)", 5),
        ("floor(pi)", 3),
        (" 12 ", 12),
        ("2 ** 1000 % 7", 2),
    ],
)
def test_values(expression: str, value: float) -> None:
    assert compute(expression) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("1 +", "not an expression"),
        ("1 / 0", "division by zero"),
        ("9 ** 9 ** 9", "too large"),
        ("10 ** 10 ** 10", "too large"),
        ("2 ** 4000 * 2 ** 4000", "too large"),
        ("2.0 ** 99999", "too large"),
        ("(-1) ** 0.5", "not a real number"),
        ("__import__('os')", "only numbers"),
        ("(1).real", "only numbers"),
        ("x", "only numbers"),
        ("'a' * 9", "only numbers"),
        ("True", "only numbers"),
        ("[1] * 9", "only numbers"),
        ("sqrt(-1)", "math domain error"),
        ("sqrt()", "argument"),
        ("(" * 300 + "1" + ")" * 100, "not an expression"),
        ("1+" * 300, "at most 500 characters"),
        ("exp(9999)", "too large"),
    ],
)
def test_what_is_not_computed_says_why(expression: str, why: str) -> None:
    with pytest.raises(ToolError, match=why):
        compute(expression)
