"""What grader `instructions` counts in a text, and the base of its constraints.

Everything here takes time linear in the text: no pattern starts again inside what it has already read from another start.
"""

import re
import unicodedata
from itertools import groupby
from typing import Annotated, Literal

import msgspec

from verifier.graders.instructions.sentences import sentences

Relation = Literal["less than", "at most", "exactly", "at least", "more than"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\S")]
Texts = Annotated[list[Text], msgspec.Meta(min_length=1)]

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
INVISIBLE = re.compile(
    "[\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b-\\u200f\\u2060-\\u206f\\u3164\\ufeff\\uffa0]"
)
"""Invisible characters. With one of them an empty title would not be empty, and a forbidden word would not be found."""


class Constraint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """One thing that can be checked in a response without understanding it."""

    def unmet(self, text: str) -> str | None:
        """What is wrong, in a few words; None when the constraint holds. text: not empty, no white space around it."""
        raise NotImplementedError


def compare(count: int, relation: Relation, bound: int, unit: str) -> str | None:
    """None when `count` stands in this relation to `bound`; otherwise what is wrong, in words."""
    holds = {
        "less than": count < bound,
        "at most": count <= bound,
        "exactly": count == bound,
        "at least": count >= bound,
        "more than": count > bound,
    }[relation]
    return None if holds else f"{count} {unit}, not {relation} {bound}"


def words(text: str) -> list[str]:
    """Runs of letters and digits; an apostrophe or a hyphen within one does not end it."""
    return WORD.findall(text)


def paragraphs(text: str) -> list[str]:
    """The parts of a text between blank lines."""
    lines = text.splitlines(keepends=True)
    return ["".join(group) for blank, group in groupby(lines, key=lambda line: not line.strip()) if not blank]


def count_sentences(text: str) -> int:
    """The number of sentences. One ends at . ! ? before white space, except after abbreviations, initials and list numbers and
    within what goes on, and with its paragraph."""
    return sum(1 for paragraph in paragraphs(text) for sentence in sentences(paragraph) if WORD.search(sentence))


def folded(text: str) -> str:
    """The text without differences that are not meant: case, full width, and typographic apostrophes, quotation marks and
    hyphens."""
    return unicodedata.normalize("NFKC", text).translate(_PLAIN).casefold()


_PLAIN = str.maketrans(
    {
        mark: plain
        for marks, plain in (
            ("\u2018\u2019\u02bc\u2032\u00b4`", "'"),
            ("\u201c\u201d\u201e", '"'),
            ("\u2010\u2011", "-"),
        )
        for mark in marks
    }
)
