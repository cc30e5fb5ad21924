"""Equations: a name and its value, a chain of equal numbers, a curve; and values with their rounding behind them."""

import re

import sympy  # type: ignore[import-untyped]

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.forms import Answer, Equation, Named, Value
from verifier.graders.math.reader import Grammar
from verifier.graders.math.structure import QUANTITY, name_of, related
from verifier.graders.math.words import DENIAL

NAME_IN_FRACTION = re.compile(r"\\(?:frac|overline)\s*\{[A-Za-z ]+\}(?:\s*\{[A-Za-z ]+\})?")
"""A ratio of lengths, or a segment: \\frac{AB}{CD}, \\overline{AB}."""


def is_rounding(text: str) -> bool:
    relation = related(text)
    return relation is not None and "approx" in relation.signs


def rounding(text: str, grammar: Grammar) -> Answer:
    """A rounding behind the exact value says nothing; behind a name it is the value."""
    relation = related(text)
    assert relation is not None
    first = relation.signs.index("approx")
    if not relation.sides[0]:  # \approx 27
        return grammar.part(relation.sides[1])
    if first > 0:
        return grammar.part(text[: relation.starts[first]])
    name = relation.sides[0]
    if not QUANTITY.fullmatch(name):
        return grammar.part(name)
    return Named(name, grammar.part(relation.sides[1]), name, relation.sides[1])


def is_equation(text: str) -> bool:
    relation = related(text)
    return relation is not None and set(relation.signs) == {"="}


def equation(text: str, grammar: Grammar) -> Answer:
    """A named value where the left side is a name, a number where all sides are that number, else an equation."""
    relation = related(text)
    assert relation is not None
    sides = relation.sides
    if any(not side for side in sides):
        raise Unreadable("one side of an equation is empty")
    if any("\\text" in side for side in sides[1:-1]):
        raise Unreadable("words within a chain of equations")
    left, right = sides[0], sides[-1]
    if left.startswith("-"):
        return Equation(left, right)
    if DENIAL.search(left):
        raise Unreadable("an answer that is denied")
    if QUANTITY.fullmatch(left) or NAME_IN_FRACTION.fullmatch(left):
        _require_equal_numbers(sides[1:], grammar)
        return Named(name_of(left), grammar.part(right), left, right)
    if len(sides) > 2 or any(letter.isalpha() for letter in re.sub(r"\\[a-zA-Z]+", "", left + right)):
        return Equation(left, right)
    return _equal_numbers(left, right, grammar)


def _require_equal_numbers(sides: tuple[str, ...], grammar: Grammar) -> None:
    """In x = 2 + 3 = 5, what has no letter in it must be one number. Raises Unreadable."""
    numbers = [side for side in sides if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side))]
    if len(numbers) < 2:
        return
    values = [grammar.part(side) for side in numbers]
    exact = [value.expr for value in values if isinstance(value, Value)]
    if any(not _is_zero(exact[0] - other) for other in exact[1:]):
        raise Unreadable("an equation that does not hold")


def _equal_numbers(left: str, right: str, grammar: Grammar) -> Answer:
    """2 + 3 = 5 states 5."""
    first, second = grammar.part(left), grammar.part(right)
    if left == right:
        raise Unreadable("an equation that says nothing")
    if isinstance(first, Value) and isinstance(second, Value) and not first.expr.free_symbols:
        if _is_zero(first.expr - second.expr):
            return second
        raise Unreadable("an equation that does not hold")
    return Equation(left, right)


def _is_zero(difference: sympy.Expr) -> bool:
    return bool(sympy.N(difference, 50, chop=True) == 0)
