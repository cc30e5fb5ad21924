"""Sums, differences, products and multiples of matrices, worked out exactly.

Matrices side by side are multiplied in their order. Powers, inverses, determinants, brackets around a sum and what could take
long are refused.
"""

import sympy  # type: ignore[import-untyped]

from verifier.graders.math.expression import Unreadable, expression
from verifier.graders.math.notation import depths

Rows = tuple[tuple[sympy.Expr, ...], ...]

MOST_MATRICES = 3
LARGEST_SIDE = 6
LARGEST_BITS = 1000
"""Size of the largest number in a matrix that is added or multiplied."""


def worked_out(matrices: list[Rows], between: list[str]) -> Rows:
    """The one matrix that they make. between: the text before the first matrix, between each two and behind the last. Raises
    Unreadable."""
    signs = _without_brackets(between)
    if signs.pop():
        raise Unreadable("something stands behind the matrix")
    if len(matrices) > 1:
        _refuse_large(matrices)
    terms = [_times(_factor(signs[0]), matrices[0])]
    for before, matrix in zip(signs[1:], matrices[1:], strict=True):
        if before[:1] in {"+", "-"}:
            terms.append(_times(_factor(before), matrix))
        elif before in {"", "\\cdot"}:
            terms[-1] = _product(terms[-1], matrix)
        else:
            raise Unreadable("something stands between the matrices")
    total = terms[0]
    for term in terms[1:]:
        if _shape(term) != _shape(total):
            raise Unreadable("matrices of different sizes are added")
        total = tuple(tuple(map(sympy.Add, *rows)) for rows in zip(total, term, strict=True))
    return total


def _without_brackets(between: list[str]) -> list[str]:
    """The texts between, without brackets around a single matrix, which an array needs."""
    parts = [part.strip() for part in between]
    for at in range(len(parts) - 1):
        if (parts[at][-1:] + parts[at + 1][:1]) in {"()", "[]"}:
            parts[at], parts[at + 1] = parts[at][:-1].rstrip(), parts[at + 1][1:].lstrip()
    parts[-1] = parts[-1].strip(" .")
    return parts


def _refuse_large(matrices: list[Rows]) -> None:
    if len(matrices) > MOST_MATRICES or any(max(_shape(matrix)) > LARGEST_SIDE for matrix in matrices):
        raise Unreadable("matrices too many or too large to be worked out")
    cells = [cell for matrix in matrices for row in matrix for cell in row]
    numbers = {number for cell in cells for number in cell.atoms(sympy.Rational)}
    if any(max(abs(number.p), number.q).bit_length() > LARGEST_BITS for number in numbers):
        raise Unreadable("matrices with numbers too large to be worked out")


def _factor(text: str) -> sympy.Expr:
    """The number before a matrix: 2 in 2A, -1 in -A. Raises Unreadable."""
    sign = sympy.Integer(-1 if text[:1] == "-" else 1)
    text = text[1:].lstrip() if text[:1] in {"+", "-"} else text
    if not text:
        return sign
    if any(character in "+-" and not depth for character, depth in zip(text, depths(text), strict=True)):
        raise Unreadable("a sum of a number and a matrix")
    return sign * expression(text.removesuffix("\\cdot").rstrip())


def _times(factor: sympy.Expr, matrix: Rows) -> Rows:
    return tuple(tuple(factor * cell for cell in row) for row in matrix)


def _product(first: Rows, second: Rows) -> Rows:
    if _shape(first)[1] != _shape(second)[0]:
        raise Unreadable("matrices whose sizes do not fit are multiplied")
    columns = list(zip(*second, strict=True))
    return tuple(tuple(sympy.Add(*map(sympy.Mul, row, column)) for column in columns) for row in first)


def _shape(matrix: Rows) -> tuple[int, int]:
    """Rows and columns."""
    return len(matrix), len(matrix[0])
