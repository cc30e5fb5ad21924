"""Whether two expressions are equal.

Numbers without roots are compared as fractions. Everything else is equal when it agrees to 100 digits, at several points
when it has variables, and once more to 400 digits: two different answers are not that close by accident. Simplifying would
prove a few more cases and may run for minutes. Roots of odd order of negative numbers are real unless i appears; a log
without a base has base 10, as in math-verify. Where i does not appear, an expression in variables has a value where it is real:
\\ln\\frac{a}{b} equals \\ln a - \\ln b, though their values for a > 0 > b are two different complex numbers.
"""

import sympy  # type: ignore[import-untyped]

from verifier.graders.math.expression import Unreadable

LARGE_EXPONENT = 100
"""A power with a larger one may be too small to be seen beside other numbers."""

POINTS = [
    [sympy.Rational(271828 + 100003 * k, 190001) for k in range(12)],
    [sympy.Rational(31416 + 20011 * k, 90001) for k in range(12)],
    [sympy.Rational((-1) ** k * (57721 + 70001 * k), 80021) for k in range(12)],
    [sympy.Rational(-((-1) ** k) * (161803 + 90007 * k), 70001) for k in range(12)],
]
"""Values for up to 12 variables, in the order of their names: twice positive, then with mixed signs."""


def equal(first: sympy.Expr, second: sympy.Expr) -> bool:
    """Whether both have the same value wherever they have one. Raises Unreadable when they cannot be evaluated."""
    if first == second:
        return True
    if first.is_Rational and second.is_Rational:
        return False
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    if first.has(sympy.core.function.AppliedUndef) or second.has(sympy.core.function.AppliedUndef):
        return bool(sympy.expand(first - second) == 0)
    if len(symbols) > 12:
        return bool(sympy.expand(first - second) == 0)
    if not (first.has(sympy.I) or second.has(sympy.I)):
        first, second = _real_roots(first), _real_roots(second)
    real = bool(symbols) and not (first.has(sympy.I) or second.has(sympy.I))
    defined = 0
    for values in POINTS if symbols else POINTS[:1]:
        point = dict(zip(symbols, values, strict=False))
        for digits in (100, 400) if values is POINTS[0] else (100,):
            same = _agree(first, second, point, digits, real=real)
            if same is False:
                return False
        defined += same is True
    return defined > 0 and (bool(symbols) or not _differ_in_size(first, second))


def _agree(
    first: sympy.Expr, second: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational], digits: int, *, real: bool
) -> bool | None:
    """Whether both have the same value at the point; None when neither has one there.

    real: a value that is not real is none where the two differ.
    """
    one, other = (_value(side, point, digits) for side in (first, second))
    if one is None or other is None:
        return None if one is other else False
    if real and not (_is_real(one) or _is_real(other)):
        return None
    scale = max(abs(one), abs(other), sympy.Integer(1))
    return bool(abs(one - other) < scale * sympy.Float(10, digits) ** -(digits - 15))


def _differ_in_size(first: sympy.Expr, second: sympy.Expr) -> bool:
    """Whether the difference is a number after all, though too small to be seen among 400 digits: e^{-1000} is not 0."""
    powers = first.atoms(sympy.Pow, sympy.exp) | second.atoms(sympy.Pow, sympy.exp)
    if not any(power.exp.is_real and abs(power.exp.evalf(15)) > LARGE_EXPONENT for power in powers):
        return False
    difference = first - second
    return bool(difference.is_comparable and difference != 0)


def _value(side: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational], digits: int) -> sympy.Expr | None:
    """None where it is not finite. Raises Unreadable."""
    try:
        floats = {symbol: sympy.Float(at, digits + 20) for symbol, at in point.items()}
        value = side.xreplace(floats).evalf(digits, maxn=3 * digits)
    except (MemoryError, RecursionError):
        raise
    except Exception as fault:
        raise Unreadable("the answer cannot be evaluated") from fault
    if value.has(sympy.nan, sympy.zoo, sympy.oo):
        return None
    if not value.is_number or any(not part.is_Float and not part.is_Rational for part in value.as_real_imag()):
        raise Unreadable("the answer cannot be evaluated")
    return value


def _is_real(value: sympy.Expr) -> bool:
    imaginary = value.as_real_imag()[1]
    return bool(abs(imaginary) <= sympy.Float(10) ** -60 * max(abs(value), sympy.Integer(1)))


def _real_roots(side: sympy.Expr) -> sympy.Expr:
    """The cube root of -8 is -2, not a complex number."""

    def odd_root(power: sympy.Pow) -> sympy.Expr:
        base, exponent = power.args
        return sympy.sign(base) ** exponent.p * sympy.Abs(base) ** exponent

    return side.replace(
        lambda node: (
            node.is_Pow
            and node.exp.is_Rational
            and node.exp.q > 1
            and node.exp.q % 2 == 1
            and not node.base.is_positive
        ),
        odd_root,
    )


def near(first: sympy.Expr, second: sympy.Expr, tolerance: float) -> bool:
    """Whether both are real, and the second is within `tolerance` times the first."""
    one, other = first.evalf(30), second.evalf(30)
    if not (one.is_real and other.is_real):
        return False
    return bool(abs(one - other) <= sympy.Float(tolerance) * abs(one))
