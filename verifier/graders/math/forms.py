"""The forms of an answer: what read.py makes of LaTeX and compare.py compares. Plain records; no text is read here."""

from dataclasses import dataclass

import sympy  # type: ignore[import-untyped]

from verifier.graders.math.matrices import Rows
from verifier.graders.math.regions import Region


@dataclass(frozen=True)
class Value:
    """A number or an expression, with what was written behind it: 5, x + 1, 5 cm, 5 %, 90°."""

    expr: sympy.Expr
    unit: str = ""
    """A name that units.py gives it, such as cm^2; empty without a unit."""
    percent: bool = False
    degrees: bool = False


@dataclass(frozen=True)
class Based:
    """A numeral with its base written behind it: 101_2."""

    digits: str
    """In capitals, without leading zeros."""
    base: int


@dataclass(frozen=True)
class Words:
    """An answer in words: yes, Monday, SEAT."""

    text: str
    """In lower case, without punctuation."""


@dataclass(frozen=True)
class Many:
    """Several answers side by side, in no order: 1, 2, 3."""

    items: tuple["Answer", ...]


@dataclass(frozen=True)
class SetOf:
    """A set written out: {1, 2}. Without items it is the empty set, and the answer "no solution"."""

    items: tuple["Answer", ...]


@dataclass(frozen=True)
class TupleOf:
    """Several answers in an order: (1, 2)."""

    items: tuple["Answer", ...]
    round: bool = True
    """In round brackets: a pair of numbers may also be an open interval."""


@dataclass(frozen=True)
class RatioOf:
    """A ratio, 1:2:3, or a time of day, 12:30."""

    items: tuple["Answer", ...]
    clock: bool
    """It may be a time of day, which has no proportions."""

    def terms(self) -> list[sympy.Expr]:
        """The numbers of the ratio. Empty when they have no proportions, as in 0:0 and 3 cm : 4 m."""
        values = [item for item in self.items if isinstance(item, Value)]
        kinds = {(value.unit, value.percent, value.degrees) for value in values}
        stated = [value.expr for value in values]
        return stated if len(stated) == len(self.items) and len(kinds) == 1 and any(stated) else []


@dataclass(frozen=True)
class Span:
    """A set of real numbers made of intervals and points: [0, 1), x > 2, the real numbers."""

    region: Region
    name: str = ""
    """The variable, where an inequality names one."""


@dataclass(frozen=True)
class Ends:
    """An interval whose ends hold variables: (a, b + 1]."""

    low: sympy.Expr
    high: sympy.Expr
    low_open: bool
    high_open: bool


@dataclass(frozen=True)
class Named:
    """A value with the name before its equals sign: x = 5."""

    name: str
    """Without spaces and braces."""
    value: "Answer"
    left: str
    """The left side as it was written."""
    right: str
    """The right side as it was written; empty where it is an environment."""


@dataclass(frozen=True)
class Equation:
    """An equation whose left side is not a name: x + y = 1. Its sides are text until compare.py needs them."""

    left: str
    right: str


@dataclass(frozen=True)
class Order:
    """Inequalities in more than one variable, or not linear: each difference is below zero, or at most zero."""

    differences: tuple[sympy.Expr, ...]
    strict: tuple[bool, ...]
    """Whether each difference is below zero."""


@dataclass(frozen=True)
class Congruence:
    """Whole numbers by their remainders: x \\equiv 1, 3 \\pmod{4}."""

    name: str
    """The left side without spaces and braces; empty without one."""
    residues: tuple[sympy.Expr, ...]
    modulus: sympy.Expr


@dataclass(frozen=True)
class Described:
    """Notation without a value to work out: {x | x = 3k, k \\in Z}, \\triangle ABC. Two are equal when they are written alike."""

    text: str
    """Without spaces, and with the same letters whatever they were called."""


@dataclass(frozen=True)
class Matrix:
    """A matrix, its sums and products worked out."""

    rows: Rows


Answer = (
    Value
    | Based
    | Words
    | Many
    | SetOf
    | TupleOf
    | RatioOf
    | Span
    | Ends
    | Named
    | Equation
    | Order
    | Matrix
    | Congruence
    | Described
)
