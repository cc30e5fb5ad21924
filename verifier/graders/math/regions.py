"""Sets of real numbers made of intervals and points: union, intersection, difference, and whether two are equal.

A region is a sequence of cuts. A cut lies directly before (0) or directly after (1) a number, and numbers between an even
cut and the next belong to the region: [1, 2) is cut before 1 and before 2, the point 3 is cut before and after 3.
"""

from collections.abc import Callable
from functools import cmp_to_key

import sympy  # type: ignore[import-untyped]

from verifier.graders.math.equality import equal
from verifier.graders.math.expression import Unreadable

Cut = tuple[sympy.Expr, int]
Region = tuple[Cut, ...]

REALS: Region = ((-sympy.oo, 0), (sympy.oo, 1))


def span(low: sympy.Expr, high: sympy.Expr, *, low_open: bool, high_open: bool) -> Region:
    """One interval; an end at infinity is always open. Raises Unreadable when it ends before it begins."""
    start: Cut = (low, int(low_open) if low.is_finite else 0)
    stop: Cut = (high, int(not high_open) if high.is_finite else 1)
    order = _order(start, stop)
    if order >= 0:
        raise Unreadable("an interval ends before it begins")
    return (start, stop)


def points(values: list[sympy.Expr]) -> Region:
    """The numbers alone."""
    region: Region = ()
    for value in values:
        region = union(region, ((value, 0), (value, 1)))
    return region


def union(first: Region, second: Region) -> Region:
    return _combined(first, second, lambda one, other: one or other)


def intersection(first: Region, second: Region) -> Region:
    return _combined(first, second, lambda one, other: one and other)


def difference(first: Region, second: Region) -> Region:
    return _combined(first, second, lambda one, other: one and not other)


def same(first: Region, second: Region) -> bool:
    """Whether both hold the same numbers."""
    return len(first) == len(second) and all(_order(one, other) == 0 for one, other in zip(first, second, strict=True))


def _combined(first: Region, second: Region, keep: Callable[[bool, bool], bool]) -> Region:
    result: list[Cut] = []
    inside = False
    for cut in sorted((*first, *second), key=cmp_to_key(_order)):
        now = keep(_holds_after(first, cut), _holds_after(second, cut))
        if now != inside:
            result.append(cut)
            inside = now
    return tuple(result)


def _holds_after(region: Region, cut: Cut) -> bool:
    return sum(_order(other, cut) <= 0 for other in region) % 2 == 1


def _order(first: Cut, second: Cut) -> int:
    """Negative, zero or positive, as the first lies before, at or after the second. Raises Unreadable."""
    one, other = first[0], second[0]
    if one == other or (one.is_finite and other.is_finite and equal(one, other)):
        return first[1] - second[1]
    difference = one - other if one.is_finite and other.is_finite else None
    if difference is None:
        return -1 if one == -sympy.oo or other == sympy.oo else 1
    value = difference.evalf(30)
    if not value.is_real:
        raise Unreadable("an interval with ends that are not real numbers")
    return -1 if value < 0 else 1
