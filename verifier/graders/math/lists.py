"""Several parts side by side: lists of answers, inequalities that hold together, and conditions such as k \\in \\mathbb{Z}."""

import re

from verifier.graders.math import regions
from verifier.graders.math.expression import Unreadable
from verifier.graders.math.forms import Answer, Many, Span, TupleOf
from verifier.graders.math.notation import plain
from verifier.graders.math.qualifier import qualified
from verifier.graders.math.reader import Grammar
from verifier.graders.math.structure import SEPARATOR, separators_in, split

CONDITION = re.compile(
    r"\s*(?:\\text\{[^{}]*\}\s*)?[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\\in\s*\\mathbb\s*\{?\s*[ZNQR]\s*\}?(?:\^\{?[+*]\}?)?\s*"
)
PARAMETER = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z])\s*\\in\s*\\mathbb\s*(\{?\s*[ZNQR]\s*\}?(?:\^\{?[+*]\}?)?)\s*$")
OF_REAL_NUMBERS = re.compile(r"mathbb\s*\{?\s*R\s*\}?\s*$")


def parameter_of(latex: str) -> tuple[str, str]:
    """The letter that stands for numbers of some kind, as in k\\pi, k \\in \\mathbb{Z}, and the kind. Empty without one."""
    text = plain(latex)
    if (behind := qualified(text)) is not None:
        return behind.letter, behind.kind
    found = PARAMETER.search(text)
    return (found[1], "".join(found[2].split()).strip("{}")) if found else ("", "")


def is_rows(text: str) -> bool:
    """Semicolons between groups of commas: 1, 2; 3, 4."""
    separators = separators_in(text)
    return ";" in separators and {","} < set(separators)


def rows(text: str, grammar: Grammar) -> Answer:
    """Each row a tuple."""
    read = [grammar.whole(part) for part in split(re.compile(";"), text) if part]
    return Many(tuple(TupleOf(row.items) if isinstance(row, Many) else row for row in read))


def listed(text: str, grammar: Grammar) -> Answer:
    """Each part an answer, but conditions, which say only where a parameter comes from."""
    parts = [part for part in split(SEPARATOR, text) if part]
    if not parts:
        raise Unreadable("a part of the answer is empty")
    kept = [part for part in parts if not CONDITION.fullmatch(part)] or parts
    answers = [grammar.part(part) for part in kept]
    if any(isinstance(answer, Span) for answer in answers) and any(
        CONDITION.fullmatch(part) and not OF_REAL_NUMBERS.search(part) for part in parts
    ):
        raise Unreadable("an interval of whole numbers")
    if any(isinstance(answer, Span) and answer.name for answer in answers):
        return joined_inequalities(answers, separators_in(text))
    return flat(answers)


def flat(answers: list[Answer]) -> Answer:
    """Several answers as one, without lists inside the list; a single one stands for itself."""
    items = [item for answer in answers for item in (answer.items if isinstance(answer, Many) else (answer,))]
    return items[0] if len(items) == 1 else Many(tuple(items))


def joined_inequalities(answers: list[Answer], separators: list[str]) -> Answer:
    """Inequalities for one variable as one set: where all of them hold, or with \\lor one of them."""
    spans = [answer for answer in answers if isinstance(answer, Span)]
    kinds = {separator.strip() for separator in separators} - {","}
    if len(spans) != len(answers) or len({span.name for span in spans}) != 1 or len(kinds) > 1:
        return Many(tuple(answers))
    region = spans[0].region
    for other in spans[1:]:
        # A comma between two inequalities for one variable says that both hold.
        join = regions.union if "\\lor" in kinds else regions.intersection
        region = join(region, other.region)
    if not region and not kinds:  # both cannot hold, so that it can only mean one or the other
        for span in spans:
            region = regions.union(region, span.region)
    return Span(region, spans[0].name)
