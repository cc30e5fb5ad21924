"""Inequalities: solved where they are linear in one variable, one absolute value aside; else kept as differences."""

import sympy  # type: ignore[import-untyped]

from verifier.graders.math import regions
from verifier.graders.math.expression import Unreadable, expression
from verifier.graders.math.forms import Order, Span
from verifier.graders.math.regions import Region

SIGNS = frozenset({"<", ">", "le", "ge", "ne"})


def inequality(sides: tuple[str, ...], signs: tuple[str, ...]) -> Span | Order:
    """A chain of them, all of which hold. signs: each of SIGNS, one between each two sides. Raises Unreadable."""
    exprs = [_function_as_variable(expression(side)) for side in sides]
    symbols = set().union(*(expr.free_symbols for expr in exprs))
    pairs = list(zip(exprs, signs, exprs[1:], strict=False))
    if len(symbols) == 1:
        (symbol,) = symbols
        region: Region | None = regions.REALS
        for left, sign, right in pairs:
            part = solved(left, sign, right, symbol)
            region = None if region is None or part is None else regions.intersection(region, part)
        if region is not None:
            return Span(region, str(symbol))
    if "ne" not in signs:
        below = [left - right if sign in {"<", "le"} else right - left for left, sign, right in pairs]
        return Order(tuple(below), tuple(sign in {"<", ">"} for sign in signs))
    raise Unreadable("an inequality that cannot be read")


def solved(left: sympy.Expr, sign: str, right: sympy.Expr, symbol: sympy.Symbol) -> Region | None:
    """Where `left sign right` holds. None when it is not linear in the symbol, one absolute value aside."""
    if left in {sympy.oo, -sympy.oo} or right in {sympy.oo, -sympy.oo}:
        is_below = sign in {"<", "le"} if right.is_finite is False else sign in {">", "ge"}
        if sign == "ne" or is_below != (sympy.oo in {left, right}):
            raise Unreadable("an inequality that cannot be read")
        return regions.REALS
    difference = sympy.expand(left - right)
    if len(absolutes := difference.atoms(sympy.Abs)) == 1:
        return _solved_by_sign(difference, sign, symbol, absolutes.pop())
    slope = difference.coeff(symbol, 1)
    rest = sympy.expand(difference - slope * symbol)
    if rest.has(symbol) or not rest.is_real or not (slope.is_positive or slope.is_negative):
        return None
    edge = -rest / slope
    if sign == "ne":
        return regions.difference(regions.REALS, regions.points([edge]))
    below = (sign in {"<", "le"}) == bool(slope.is_positive)
    is_open = sign in {"<", ">"}
    low, high = (-sympy.oo, edge) if below else (edge, sympy.oo)
    return regions.span(low, high, low_open=is_open, high_open=is_open)


def _solved_by_sign(difference: sympy.Expr, sign: str, symbol: sympy.Symbol, absolute: sympy.Abs) -> Region | None:
    """With one |ax + b|: solved where ax + b is at least zero, and where it is below."""
    (inside,) = absolute.args
    region: Region = ()
    for half, value in (("ge", inside), ("<", -inside)):
        side = solved(inside, half, sympy.Integer(0), symbol)
        part = solved(difference.xreplace({absolute: value}), sign, sympy.Integer(0), symbol)
        if side is None or part is None:
            return None
        region = regions.union(region, regions.intersection(side, part))
    return region


def _function_as_variable(expr: sympy.Expr) -> sympy.Expr:
    """f(x) > 0 says something of f(x) alone."""
    return expr.replace(
        lambda node: isinstance(node, sympy.core.function.AppliedUndef), lambda call: sympy.Symbol(str(call))
    )
