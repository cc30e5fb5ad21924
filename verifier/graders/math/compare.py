"""Whether an answer states what the reference answer states: the rules beyond the equality of two expressions.

Sets are unordered and tuples ordered; the ends of intervals matter. Several answers equal several, never one of them. An
answer may leave out or add a unit, the name before an equals sign, the brackets around a tuple in its order, or the base
behind a numeral, as long as it contradicts nothing. (1, 2) is a pair or an open interval, whichever the other side is.
"""

import re
from dataclasses import dataclass
from typing import Literal

import sympy  # type: ignore[import-untyped]

from verifier.graders.math import regions
from verifier.graders.math.congruence import is_remainder, joined_congruences, same_congruence
from verifier.graders.math.equality import POINTS, equal, near
from verifier.graders.math.expression import expression
from verifier.graders.math.forms import (
    Answer,
    Based,
    Congruence,
    Described,
    Ends,
    Equation,
    Many,
    Matrix,
    Named,
    Order,
    RatioOf,
    SetOf,
    Span,
    TupleOf,
    Value,
    Words,
)
from verifier.graders.math.structure import NAME
from verifier.graders.math.units import units_agree
from verifier.graders.math.words import same_words

Percent = Literal["either", "value", "unit"]


@dataclass(frozen=True)
class Rules:
    """What counts as equal; the fields are the grader's options of the same names."""

    tolerance: float = 0.0
    percent: Percent = "either"

    def same(self, reference: Answer, answer: Answer) -> bool:  # noqa: PLR0911
        """Whether the answer states what the reference states. Raises Unreadable when that cannot be worked out."""
        if isinstance(reference, Named) or isinstance(answer, Named | Equation):
            return self._same_equation(reference, answer)
        match reference, answer:
            case Value(), Value():
                return self._same_value(reference, answer)
            case (Many() | SetOf() | TupleOf(), _) | (_, Many() | SetOf() | TupleOf()):
                return self._same_collection(reference, answer)
            case Words(), Words():
                return same_words(reference.text, answer.text)
            case Based(), Based():
                return reference == answer
            case Based(), Value():
                return reference.digits.isdigit() and answer.expr == sympy.Integer(reference.digits) and not answer.unit
            case Span(), Span():
                names_agree = not (reference.name and answer.name) or reference.name == answer.name
                return names_agree and regions.same(reference.region, answer.region)
            case Ends(), Ends():
                ends_agree = (reference.low_open, reference.high_open) == (answer.low_open, answer.high_open)
                return ends_agree and equal(reference.low, answer.low) and equal(reference.high, answer.high)
            case RatioOf(), RatioOf():
                return self._same_ratio(reference, answer)
            case (RatioOf() as ratio, Value() as value) | (Value() as value, RatioOf() as ratio):
                terms = ratio.terms()
                two = len(terms) == 2 and terms[1] != 0 and not ratio.clock
                return two and _is_plain(value) and self._same_number(terms[0], value.expr * terms[1])
        return self._same_rare_form(reference, answer)

    def _same_rare_form(self, reference: Answer, answer: Answer) -> bool:
        match reference, answer:
            case Congruence(), Congruence():
                return same_congruence(reference, answer)
            case (Value() as value, Congruence() as remainder) | (Congruence() as remainder, Value() as value):
                return is_remainder(value, remainder)
            case Described(), Described():
                return reference.text == answer.text
            case Order(), Order():
                return _same_order(reference, answer)
            case Matrix(), Matrix():
                return len(reference.rows) == len(answer.rows) and all(
                    len(one) == len(other) and all(map(self._same_number, one, other))
                    for one, other in zip(reference.rows, answer.rows, strict=True)
                )
        return False

    def _same_number(self, reference: sympy.Expr, answer: sympy.Expr) -> bool:
        if equal(reference, answer):
            return True
        is_number = not reference.free_symbols and not answer.free_symbols
        return self.tolerance > 0 and is_number and near(reference, answer, self.tolerance)

    def _same_value(self, reference: Value, answer: Value) -> bool:
        gold, stated = reference.expr, answer.expr
        if (reference.percent and answer.unit) or (reference.unit and answer.percent):
            return False
        if reference.unit and answer.unit and not units_agree(reference.unit, answer.unit):
            return False
        if reference.percent != answer.percent:
            as_value = (gold / 100, stated) if reference.percent else (gold, stated / 100)
            # Between -1 and 1 a reference without the sign is a share, and 0.5% is not 0.5.
            may_be_unit = reference.percent or bool(gold.is_real and sympy.Abs(gold) > 1)
            return (self.percent != "unit" and self._same_number(*as_value)) or (
                (self.percent == "unit" or (self.percent == "either" and may_be_unit))
                and self._same_number(gold, stated)
            )
        if reference.degrees != answer.degrees:
            turn = sympy.pi / 180
            radians = (gold * turn, stated) if reference.degrees else (gold, stated * turn)
            left_out = not (reference.unit or answer.unit or gold.has(sympy.pi) or stated.has(sympy.pi))
            return (left_out and self._same_number(gold, stated)) or self._same_number(*radians)
        return self._same_number(gold, stated)

    def _same_collection(self, reference: Answer, answer: Answer) -> bool:  # noqa: PLR0911
        match reference, answer:
            case TupleOf(), TupleOf():
                return self._in_order(reference.items, answer.items)
            case (Many(items=items), TupleOf(items=others)) | (TupleOf(items=others), Many(items=items)):
                if all(isinstance(item, Named) for item in items) and not any(isinstance(o, Named) for o in others):
                    items = tuple(sorted(items, key=lambda item: item.name if isinstance(item, Named) else ""))
                return self._in_order(others, items)
            case Many(), Many():
                if _names(reference) != _names(answer) and max(len(_names(reference)), len(_names(answer))) > 1:
                    return not (_names(reference) and _names(answer)) and self._in_order(reference.items, answer.items)
                return self._same_list(reference.items, answer.items)
            case (Many(items=items), Congruence() as other) | (Congruence() as other, Many(items=items)):
                one = joined_congruences(items)
                return one is not None and same_congruence(one, other)
            case (SetOf() | Many(), SetOf() | Many()):
                return self._covers(reference.items, answer.items) and self._covers(answer.items, reference.items, True)
            case (Many(items=items), Span() as span) | (Span() as span, Many(items=items)):
                joined = _joined(items)
                return joined is not None and regions.same(joined, span.region)
            case SetOf(), Span():
                return self._points_are(reference, answer)
            case Span(), SetOf():
                return self._points_are(answer, reference)
            case (SetOf(items=(only,)), other) | (other, SetOf(items=(only,))) if not isinstance(other, TupleOf | Many):
                return self.same(only, other)
            case (TupleOf(items=(Value() as low, Value() as high), round=True), other) | (
                other,
                TupleOf(items=(Value() as low, Value() as high), round=True),
            ):
                return self._is_open_interval(low, high, other)
        return False

    def _in_order(self, reference: tuple[Answer, ...], answer: tuple[Answer, ...]) -> bool:
        return len(reference) == len(answer) and all(map(self.same, reference, answer))

    def _covers(self, reference: tuple[Answer, ...], answer: tuple[Answer, ...], swapped: bool = False) -> bool:
        """Whether every item of the answer is one of the reference's; each counts once when there are equally many.

        swapped: the two were exchanged, and are exchanged again where items are compared.
        """
        left = list(reference)
        for item in answer:
            found = next((at for at, gold in enumerate(left) if self._same_item(gold, item, swapped)), None)
            if found is None:
                return False
            if len(reference) == len(answer):
                del left[found]
        return True

    def _same_list(self, reference: tuple[Answer, ...], answer: tuple[Answer, ...]) -> bool:
        """Whether each item occurs as often as in the reference; an answer may repeat items where the reference does not."""
        if len(reference) == len(answer):
            return self._covers(reference, answer)
        distinct = all(not self.same(one, other) for at, one in enumerate(reference) for other in reference[:at])
        return distinct and self._covers(reference, answer) and self._covers(answer, reference, True)

    def _same_item(self, reference: Answer, answer: Answer, swapped: bool) -> bool:
        if isinstance(reference, SetOf) != isinstance(answer, SetOf):
            return False  # {1} may stand for 1 by itself, but not within {{1}, 2}
        return self.same(answer, reference) if swapped else self.same(reference, answer)

    def _points_are(self, points: SetOf, span: Span) -> bool:
        if not all(isinstance(item, Value) for item in points.items):
            return False
        region = regions.points([item.expr for item in points.items if isinstance(item, Value)])
        return regions.same(region, span.region)

    def _is_open_interval(self, low: Value, high: Value, other: Answer) -> bool:
        if isinstance(other, Ends):
            return other.low_open and other.high_open and equal(low.expr, other.low) and equal(high.expr, other.high)
        if not isinstance(other, Span) or low.expr.free_symbols or high.expr.free_symbols or len(other.region) != 2:
            return False
        (start, after), (stop, before) = other.region
        return (after, before) == (1, 0) and equal(low.expr, start) and equal(high.expr, stop)

    def _same_ratio(self, reference: RatioOf, answer: RatioOf) -> bool:
        gold, stated = reference.terms(), answer.terms()
        if (reference.clock and answer.clock) or not (gold or stated):
            return self._in_order(reference.items, answer.items)
        return len(gold) == len(stated) and all(
            equal(one * stated[0], other * gold[0]) for one, other in zip(gold, stated, strict=True)
        )

    def _same_equation(self, reference: Answer, answer: Answer) -> bool:
        if isinstance(reference, Named) and isinstance(answer, Named) and _one_name(reference.name, answer.name):
            return self.same(reference.value, answer.value)
        if isinstance(reference, Named | Equation) and isinstance(answer, Named | Equation):
            return _equivalent(reference, answer)
        spread_reference, spread_answer = _spread(reference, answer), _spread(answer, reference)
        if (spread_reference, spread_answer) != (reference, answer):
            return self.same(spread_reference, spread_answer)
        if isinstance(reference, Named):
            # A curve x + y = 1 is not answered by 1; a distance |AB| = 1 is.
            stands_for_value = not re.search(r"[+\-]|\^", reference.name.replace("^{-1}", "").replace("^-1", ""))
            return stands_for_value and self.same(reference.value, answer)
        return isinstance(answer, Named) and self.same(reference, answer.value)


def _names(answer: Many) -> set[str]:
    """The variables that the items give values for; x_1 and x_2 are two solutions for x."""
    return {re.sub(r"_\w+$", "", item.name) for item in answer.items if isinstance(item, Named)}


def _joined(items: tuple[Answer, ...]) -> regions.Region | None:
    """The union of several intervals; None when they overlap, because then they are different answers."""
    region: regions.Region = ()
    if len({item.name for item in items if isinstance(item, Named)}) > 1:
        return None
    for item in items:
        span = item.value if isinstance(item, Named) else item
        if not isinstance(span, Span) or regions.intersection(region, span.region):
            return None
        region = regions.union(region, span.region)
    return region


def _is_plain(value: Value) -> bool:
    return not (value.unit or value.percent or value.degrees)


def _spread(side: Answer, other: Answer) -> Answer:
    """(x, y) = (1, 2) becomes x = 1, y = 2 where the other side names each of them."""
    if (
        isinstance(side, Named)
        and isinstance(side.value, TupleOf)
        and isinstance(other, Many)
        and all(isinstance(item, Named) for item in other.items)
    ):
        names = side.name.strip("()").split(",")
        if len(names) == len(side.value.items):
            named = zip(names, side.value.items, strict=True)
            return Many(tuple(Named(name, value, name, "") for name, value in named))
    return side


def _one_name(one: str, other: str) -> bool:
    if one == other or "\\text" in one + other:
        return True
    functions = {name for name in (one, other) if re.fullmatch(r"[a-zA-Z]\([a-z]\)", name)}
    return len(functions) == 1 and "y" in {one, other}


def _equivalent(reference: Named | Equation, answer: Named | Equation) -> bool:
    """Whether one equation is a non-zero multiple of the other."""
    if not all((reference.left, reference.right, answer.left, answer.right)):
        return False
    if isinstance(reference, Named) and isinstance(answer, Named) and _is_constant(reference) and _is_constant(answer):
        return False  # x = 3 and y = 3
    gold, stated = (expression(side.left) - expression(side.right) for side in (reference, answer))
    return gold.free_symbols == stated.free_symbols and _proportional(gold, stated)


def _same_order(reference: Order, answer: Order) -> bool:
    if len(reference.differences) != len(answer.differences):
        return False
    chains = [(answer.differences, answer.strict), (answer.differences[::-1], answer.strict[::-1])]
    return any(
        strict == reference.strict
        and all(
            _proportional(one, other, positive=True) for one, other in zip(reference.differences, chain, strict=True)
        )
        for chain, strict in chains
    )


def _is_constant(side: Named) -> bool:
    return NAME.fullmatch(side.left) is not None and isinstance(side.value, Value) and not side.value.expr.free_symbols


def _proportional(one: sympy.Expr, other: sympy.Expr, *, positive: bool = False) -> bool:
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    if not symbols or len(symbols) > len(POINTS[2]):
        return False
    point = dict(zip(symbols, POINTS[2], strict=False))
    at_one, at_other = one.subs(point), other.subs(point)
    if equal(at_one, sympy.Integer(0)) or equal(at_other, sympy.Integer(0)):
        return False
    if positive and not (at_one / at_other).evalf(30) > 0:
        return False
    return equal(one * at_other, other * at_one)
