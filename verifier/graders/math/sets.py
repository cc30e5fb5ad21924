"""Sets, intervals and tuples: what stands in braces and brackets, and sets joined by signs."""

import re

import sympy  # type: ignore[import-untyped]

from verifier.graders.math import regions
from verifier.graders.math.expression import Unreadable, expression
from verifier.graders.math.forms import Answer, Described, Ends, Many, Named, SetOf, Span, TupleOf, Value
from verifier.graders.math.reader import Grammar
from verifier.graders.math.regions import Region
from verifier.graders.math.structure import (
    QUANTITY,
    RELATION,
    SEPARATOR,
    closes_at_end,
    name_of,
    related,
    split,
    top_level,
)

EMPTY = re.compile(r"\\emptyset\s*|\\\{\s*\\\}")
REALS = re.compile(r"(?:\\mathbb\s*\{\s*R\s*\}|\\R(?![a-zA-Z]))\s*(.*)")
POSITIVE, NOT_NEGATIVE = (
    regions.span(sympy.Integer(0), sympy.oo, low_open=low_open, high_open=True) for low_open in (True, False)
)
NEGATIVE = regions.span(-sympy.oo, sympy.Integer(0), low_open=True, high_open=True)
PARTS_OF_REALS = {
    "": regions.REALS, "^+": POSITIVE, "_+": POSITIVE, "_>0": POSITIVE, "_\\ge0": NOT_NEGATIVE, "^-": NEGATIVE, "_-": NEGATIVE,
    "_<0": NEGATIVE,
}  # fmt: skip
SET_SIGN = re.compile(r"\\cup(?![a-zA-Z])|\\cap(?![a-zA-Z])|\\setminus(?![a-zA-Z])")


def is_empty_set(text: str) -> bool:
    return EMPTY.fullmatch(text) is not None


def real_numbers(text: str) -> Region | None:
    """All real numbers, or those of one sign: \\mathbb{R}^+. None for anything else."""
    found = REALS.fullmatch(text)
    return PARTS_OF_REALS.get(re.sub(r"[\s{}]", "", found[1])) if found else None


def is_set(text: str) -> bool:
    """One pair of printed braces around something."""
    in_braces = text.startswith("\\{") and text.endswith("\\}")
    return in_braces and not is_empty_set(text) and closes_at_end(text[1:-2] + "}")


def set_of(text: str, grammar: Grammar) -> Answer:
    """Its items, or with a bar or colon and a condition for one real variable where that holds."""
    inside = text[2:-2].strip()
    bar = next(iter(top_level(re.compile(":" if ":" in inside else r"\|"), inside)), None)
    builder = [inside] if bar is None else [inside[: bar.start()].strip(), inside[bar.end() :].strip()]
    if len(builder) == 2 and related(builder[1]):
        return _built(builder, grammar)
    inner = grammar.whole(inside)
    return SetOf(inner.items if isinstance(inner, Many) else (inner,))


def _built(builder: list[str], grammar: Grammar) -> Answer:
    """A set of numbers where its condition can be solved, else the condition as it is written."""
    try:
        condition = grammar.whole(builder[1])
        variable, *domain = (side.strip() for side in re.split(r"\\in(?![a-zA-Z])", builder[0]))
        is_real = not domain or isinstance(grammar.part(domain[0]), Span)
        if isinstance(condition, Span) and condition.name == variable and is_real:
            return Span(condition.region)
    except Unreadable:
        pass  # it may still be compared as it is written
    return Described(_with_fixed_letters("|".join(builder)))


def _with_fixed_letters(text: str) -> str:
    """Without spaces; the letter of a member is the first, and letters that stand for numbers of some kind follow."""
    text = re.sub(r"\s*\\land(?![a-zA-Z])\s*|;", ",", text)
    letters = [found[1] for found in re.finditer(r"(?<![a-zA-Z\\])([a-zA-Z])\s*\\in(?![a-zA-Z])", text)]
    member = re.match(r"\(?\s*([a-zA-Z](?:\s*,\s*[a-zA-Z])*)\s*\)?\s*(?:\||\\in(?![a-zA-Z]))", text)
    names = dict.fromkeys([*(re.findall("[a-zA-Z]", member[1]) if member else []), *letters])
    for at, letter in enumerate(names):
        text = re.sub(rf"(?<![a-zA-Z\\#]){letter}(?![a-zA-Z])", f"#{at}", text)
    return re.sub(r"\s+", "", text)


def is_set_algebra(text: str) -> bool:
    return bool(top_level(SET_SIGN, text))


def set_algebra(text: str, grammar: Grammar) -> Answer:
    """Signs of one kind between sets of numbers."""
    signs = top_level(SET_SIGN, text)
    parts = split(SET_SIGN, text)
    region = _region(grammar.part(parts[0]))
    join = {"\\cup": regions.union, "\\cap": regions.intersection, "\\setminus": regions.difference}
    if len({sign[0] for sign in signs}) > 1:
        raise Unreadable("set operations without brackets")
    for sign, part in zip(signs, parts[1:], strict=True):
        region = join[sign[0]](region, _region(grammar.part(part)))
    return Span(region)


def is_bracketed(text: str) -> bool:
    """One pair of round or square brackets, also of different kinds, around several parts or around (x = 1)."""
    if len(text) < 2 or text[0] not in "([]" or text[-1] not in ")][":
        return False
    if not closes_at_end("(" + text[1:-1] + ")"):
        return False
    return len(_items(text)) > 1 or (text[0] + text[-1] == "()" and _holds_structure(text[1:-1]))


def bracketed(text: str, grammar: Grammar) -> Answer:
    """An interval where brackets or an infinity say so, else a tuple."""
    items = _items(text)
    if len(items) == 1:
        return grammar.part(text[1:-1])
    if len(items) == 2 and (text[0] + text[-1] != "()" or "\\infty" in text):
        low, high = (expression(item) for item in items)
        low_open, high_open = text[0] != "[", text[-1] != "]"
        if low.free_symbols or high.free_symbols:
            return Ends(low, high, low_open, high_open)
        return Span(regions.span(low, high, low_open=low_open, high_open=high_open))
    if text[0] == "]" or text[-1] == "[" or (text[0] + text[-1] not in {"()", "[]"}):
        raise Unreadable("brackets that do not match")
    answers = [grammar.part(item) for item in items]
    if any(isinstance(answer, Many) for answer in answers):
        raise Unreadable("several answers within a tuple")
    return TupleOf(tuple(answers), round=text[0] == "(")


def is_membership(text: str) -> bool:
    """x \\in S, with one name on the left."""
    relation = related(text)
    return relation is not None and relation.signs == ("in",) and QUANTITY.fullmatch(relation.sides[0]) is not None


def membership(text: str, grammar: Grammar) -> Answer:
    """The set under the name of its member; a pair of numbers is an open interval here."""
    relation = related(text)
    assert relation is not None
    left, right = relation.sides
    members = grammar.part(right)
    if isinstance(members, TupleOf) and members.round and len(members.items) == 2:
        members = Span(_region(members))
    return Named(name_of(left), members, left, right)


def _items(text: str) -> list[str]:
    return split(re.compile("[,;]"), text[1:-1])


def _holds_structure(text: str) -> bool:
    return bool(top_level(SEPARATOR, text) or top_level(RELATION, text) or text.startswith("\\text"))


def _region(answer: Answer) -> Region:
    if isinstance(answer, TupleOf) and answer.round and len(answer.items) == 2:
        low, high = (item.expr for item in answer.items if isinstance(item, Value))
        return regions.span(low, high, low_open=True, high_open=True)
    if isinstance(answer, SetOf) and all(isinstance(item, Value) for item in answer.items):
        return regions.points([item.expr for item in answer.items if isinstance(item, Value)])
    if isinstance(answer, Span):
        return answer.region
    raise Unreadable("a set that cannot be read")
