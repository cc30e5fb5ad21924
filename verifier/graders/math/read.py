"""From an answer in LaTeX to what it states: the grammar, as two tables of readers.

Texts come in the notation of notation.py; expressions inside them are read by expression.py. ANSWERS reads an answer that may
have several parts, PARTS one of them. The first reader of a table that takes a text reads it, so the order of the rows is
the grammar. What stands behind the order:

- A fixed phrase or sign comes before the general form that it looks like: "no solution" before words.
- What encloses all of a text comes before what splits it: environments before lists, a set before its signs.
- What splits a text comes before what it splits it into: rows before lists, relations before unions, both before ratios.
- "another relation" comes after the relations that can be read, and refuses what they did not take.
- The last row takes everything. What it cannot read it refuses with Unreadable, because a lenient reading is what a model
  would learn to exploit.

A row names in `before` the readers further down that would take an example of its own and read it wrongly, the last row aside,
to which all of this applies. Rows that name no one may stand anywhere above the last.
"""

import re
from dataclasses import replace
from functools import lru_cache

from verifier.graders.math.congruence import congruence, is_congruence
from verifier.graders.math.environment import environment, is_environment
from verifier.graders.math.equation import equation, is_equation, is_rounding, rounding
from verifier.graders.math.expression import Unreadable, expression
from verifier.graders.math.forms import Answer, RatioOf, SetOf, Span, Value, Words
from verifier.graders.math.inequality import SIGNS, inequality
from verifier.graders.math.lists import flat, is_rows, joined_inequalities, listed, rows
from verifier.graders.math.notation import plain
from verifier.graders.math.numeral import based, is_based
from verifier.graders.math.qualifier import qualified
from verifier.graders.math.reader import Before, Grammar, Reader, reader_of
from verifier.graders.math.sets import (
    bracketed,
    is_bracketed,
    is_empty_set,
    is_membership,
    is_set,
    is_set_algebra,
    membership,
    real_numbers,
    set_algebra,
    set_of,
)
from verifier.graders.math.structure import bare, related, separators_in, split
from verifier.graders.math.units import without_unit
from verifier.graders.math.words import (
    is_letter_in_text,
    is_text,
    is_words,
    says_no_solution,
    without_text,
    words_of,
)
from verifier.graders.math.written import as_written, is_as_written

MOST_ITEMS = 60
MOST_SIGNS = 3  # plus-or-minus signs, each of which doubles the answers
CLOCK = re.compile(r"\s*\d{1,2}\s*:\s*[0-5]\d\s*")


@lru_cache(maxsize=2048)
def read(latex: str) -> Answer:
    """Raises Unreadable."""
    return whole(plain(latex))


def whole(text: str) -> Answer:
    """An answer that may have several parts. Raises Unreadable."""
    text = bare(text)
    if not text:
        raise Unreadable("a part of the answer is empty")
    if text.count(",") > MOST_ITEMS:
        raise Unreadable("the answer has too many parts")
    return reader_of(ANSWERS, text).read(text, GRAMMAR)


def part(text: str) -> Answer:
    """One part of an answer. Raises Unreadable."""
    text = bare(text)
    return reader_of(PARTS, text).read(text, GRAMMAR)


GRAMMAR = Grammar(whole=whole, part=part)


def _is_both_signs(text: str) -> bool:
    """Signs outside sets: {\\pm 1} is one set of two numbers wherever it stands."""
    return re.search(r"\\(?:pm|mp)(?![a-zA-Z])", re.sub(r"\\\{[^{}]*\\\}", "", text)) is not None


def _both_signs(text: str, grammar: Grammar) -> Answer:
    signs = re.findall(r"\\pm|\\mp", text)
    if len(signs) > MOST_SIGNS:
        raise Unreadable("the answer has too many plus-or-minus signs")
    if "\\mp" in signs:  # tied: the upper signs together, then the lower ones
        readings = [text.replace("\\pm", upper).replace("\\mp", lower) for upper, lower in (("+", "-"), ("-", "+"))]
    else:
        readings = [text]
        for _ in signs:
            readings = [reading.replace("\\pm", sign, 1) for reading in readings for sign in "+-"]
    answers = [grammar.part(re.sub(r"(^|[=(,{])\s*\+", r"\1", reading)) for reading in readings]
    if "\\ne" in text and all(isinstance(answer, Span) for answer in answers):
        return joined_inequalities(answers, [])  # x is neither of them
    return flat(answers)


def _without_qualifier(text: str, grammar: Grammar) -> Answer:
    behind = qualified(text)
    assert behind is not None
    return grammar.whole(behind.answer)


def _is_inequality(text: str) -> bool:
    relation = related(text)
    return relation is not None and SIGNS.issuperset(relation.signs)


def _inequality(text: str, _: Grammar) -> Answer:
    relation = related(text)
    assert relation is not None
    return inequality(relation.sides, relation.signs)


def _refused_relation(text: str, _: Grammar) -> Answer:
    raise Unreadable("a relation that cannot be read")


def _terms(text: str) -> list[str]:
    return split(re.compile(":"), text)


def _ratio(text: str, grammar: Grammar) -> Answer:
    return RatioOf(tuple(map(grammar.part, _terms(text))), clock=CLOCK.fullmatch(text) is not None)


def _value(text: str, _: Grammar) -> Answer:
    measured = without_unit(text)
    return Value(expression(measured.number), measured.unit, measured.percent, measured.degrees)


def _everything(_: str) -> bool:
    return True


LISTS = (
    Reader(
        name="rows",
        example="1, 2; 3, 4",
        takes=is_rows,
        read=rows,
        before=(Before("list", "1, 2; 3, 4", "it knows one kind of separator, and the rows would be lost"),),
    ),
    Reader(
        name="list",
        example="1, 2",
        takes=lambda text: bool(separators_in(text)),
        read=listed,
    ),
    Reader(
        name="one part",
        example="5",
        takes=_everything,
        read=lambda text, grammar: grammar.part(text),
    ),
)

CONGRUENCE = Reader(
    name="congruence",
    example=r"x \equiv 1 \pmod{4}",
    takes=is_congruence,
    read=congruence,
    before=(
        Before("list", r"x \equiv 1, 3 \pmod{4}", "the modulus belongs to all of the remainders"),
        Before("plus or minus", r"x \equiv \pm 1 \pmod{4}", "both remainders make one congruence"),
        Before("equation", r"x = 1 \pmod{4}", "the modulus does not belong to the right side alone"),
        Before("another relation", r"x \equiv 1 \pmod{4}", "it refuses what the rows above it did not take"),
    ),
)

ANSWERS = (
    Reader(
        name="environment",
        example=r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        takes=is_environment,
        read=environment,
        before=(Before("list", r"\begin{cases} x = 1, \\ y = 2 \end{cases}", "the commas belong to the rows"),),
    ),
    Reader(
        name="no solution",
        example=r"\text{no solution}",
        takes=says_no_solution,
        read=lambda text, _: SetOf(()),
        before=(Before("words", r"\text{no solution}", "the empty set may be written in signs as well"),),
    ),
    Reader(
        name="qualified",
        example=r"f(x) = cx\text{ for any real }c",
        takes=lambda text: qualified(text) is not None,
        read=_without_qualifier,
        before=(Before("list", r"cx, c\text{ is a constant}", "what is behind the comma is no answer of its own"),),
    ),
    replace(CONGRUENCE, before=CONGRUENCE.before[:1]),
    Reader(
        name="letter in text",
        example=r"\text{x}",
        takes=is_letter_in_text,
        read=lambda text, grammar: reader_of(LISTS, without_text(text)).read(without_text(text), grammar),
        before=(Before("words", r"\text{x}", "a variable is the same without \\text{}"),),
    ),
    Reader(
        name="words",
        example=r"\text{Monday, Tuesday}",
        takes=is_text,
        read=lambda text, _: Words(words_of(text)),
    ),
    *LISTS,
)

PARTS = (
    replace(CONGRUENCE, before=CONGRUENCE.before[1:]),
    Reader(
        name="set",
        example=r"\{1, 2\}",
        takes=is_set,
        read=set_of,
    ),
    Reader(
        name="plus or minus",
        example=r"\pm 2",
        takes=_is_both_signs,
        read=_both_signs,
        before=(
            Before("equation", r"x = \pm 2", "each sign makes an equation of its own"),
            Before("another relation", r"x = \pm 2", "it refuses what the rows above it did not take"),
            Before("bracketed", r"(1, \pm 2)", "each sign makes a tuple of its own"),
            Before("ratio", r"1:\pm 2", "each sign makes a ratio of its own"),
        ),
    ),
    Reader(
        name="rounding",
        example=r"\sqrt{2} \approx 1.41",
        takes=is_rounding,
        read=rounding,
        before=(
            Before("another relation", r"\sqrt{2} \approx 1.41", "it refuses what the rows above it did not take"),
            Before("ratio", r"1:15 \approx 0.07", "the relation splits the text, and then the colon its side"),
        ),
    ),
    Reader(
        name="equation",
        example="x = 5",
        takes=is_equation,
        read=equation,
        before=(
            Before("another relation", "x = 5", "it refuses what the rows above it did not take"),
            Before(
                "set algebra", r"S = [0, 1] \cup [2, 3]", "the relation splits the text, and then the sign its side"
            ),
            Before("ratio", "x = 1:2", "the relation splits the text, and then the colon its side"),
        ),
    ),
    Reader(
        name="membership",
        example=r"x \in (0, 1)",
        takes=is_membership,
        read=membership,
        before=(
            Before("another relation", r"x \in (0, 1)", "it refuses what the rows above it did not take"),
            Before("set algebra", r"x \in (0, 1) \cup (2, 3)", "the union belongs to the right side"),
        ),
    ),
    Reader(
        name="inequality",
        example="x > 2",
        takes=_is_inequality,
        read=_inequality,
        before=(Before("another relation", "x > 2", "it refuses what the rows above it did not take"),),
    ),
    Reader(
        name="another relation",
        example=r"A \subset B",
        takes=lambda text: related(text) is not None,
        read=_refused_relation,
        before=(Before("ratio", r"x = 1 : x > 0", "what has a relation of no known kind is refused as a whole"),),
    ),
    Reader(
        name="words",
        example="SEAT",
        takes=is_words,
        read=lambda text, _: Words(words_of(text)),
    ),
    Reader(
        name="empty set",
        example=r"\emptyset",
        takes=is_empty_set,
        read=lambda text, _: SetOf(()),
    ),
    Reader(
        name="set algebra",
        example=r"[0, 1] \cup [2, 3]",
        takes=is_set_algebra,
        read=set_algebra,
        before=(Before("bracketed", r"]0, 1[ \cup ]2, 3[", "the first bracket does not close at the last"),),
    ),
    Reader(
        name="real numbers",
        example=r"\mathbb{R}",
        takes=lambda text: real_numbers(text) is not None,
        read=lambda text, _: Span(real_numbers(text) or ()),
        before=(Before("as it is written", r"\mathbb{R}", "the real numbers are an interval"),),
    ),
    Reader(
        name="bracketed",
        example="(1, 2)",
        takes=is_bracketed,
        read=bracketed,
    ),
    Reader(
        name="ratio",
        example="1:2",
        takes=lambda text: len(_terms(text)) > 1,
        read=_ratio,
    ),
    Reader(
        name="numeral with a base",
        example="101_2",
        takes=is_based,
        read=lambda text, _: based(text),
    ),
    Reader(
        name="as it is written",
        example=r"\mathbb{Z}_5",
        takes=is_as_written,
        read=as_written,
    ),
    Reader(
        name="value",
        example=r"5\text{ cm}",
        takes=_everything,
        read=_value,
    ),
)
