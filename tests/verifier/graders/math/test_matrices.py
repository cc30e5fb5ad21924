"""Matrices that are worked out, and those that are refused."""

import pytest
import sympy  # type: ignore[import-untyped]

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.matrices import LARGEST_SIDE, Rows, worked_out


def rows(*given: tuple[int, ...]) -> Rows:
    return tuple(tuple(map(sympy.Integer, row)) for row in given)


A = rows((1, 2), (3, 4))
B = rows((0, 1), (1, 0))


def test_a_matrix_alone_is_itself() -> None:
    assert worked_out([A], ["", ""]) == A


def test_a_factor_multiplies_every_cell() -> None:
    assert worked_out([A], ["2", ""]) == rows((2, 4), (6, 8))
    assert worked_out([A], ["-", ""]) == rows((-1, -2), (-3, -4))


def test_sums_and_differences_are_worked_out() -> None:
    assert worked_out([A, B], ["", "+", ""]) == rows((1, 3), (4, 4))
    assert worked_out([A, B], ["", "- 2", ""]) == rows((1, 0), (1, 4))


@pytest.mark.parametrize("sign", ["", "\\cdot"])
def test_matrices_side_by_side_are_multiplied_in_their_order(sign: str) -> None:
    assert worked_out([A, B], ["", sign, ""]) == rows((2, 1), (4, 3))
    assert worked_out([B, A], ["", sign, ""]) == rows((3, 4), (1, 2))


def test_brackets_around_one_matrix_do_not_matter() -> None:
    assert worked_out([A], ["(", ")"]) == A


@pytest.mark.parametrize(
    ("matrices", "between", "why"),
    [
        ([A], ["", "^{2}"], "behind the matrix"),
        ([A, B], ["", "/", ""], "between the matrices"),
        ([A, rows((1, 2))], ["", "+", ""], "different sizes"),
        ([A, rows((1, 2, 3))], ["", "", ""], "do not fit"),
        ([A], ["1 + 2", ""], "sum of a number and a matrix"),
        ([A, A, A, A], ["", "", "", "", ""], "too many"),
        ([rows((1,) * (LARGEST_SIDE + 1)), A], ["", "+", ""], "too large"),
        ([rows((2**2000,)), rows((1,))], ["", "+", ""], "numbers too large"),
    ],
)
def test_what_cannot_be_worked_out_is_refused_with_the_reason(
    matrices: list[Rows], between: list[str], why: str
) -> None:
    with pytest.raises(Unreadable, match=why):
        worked_out(matrices, between)
