"""What grader `instructions` counts in a text, and the base of its constraints.

Everything here takes time linear in the text: no pattern starts again inside what it has already read from another start.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Literal

import msgspec

Relation = Literal["less than", "at most", "exactly", "at least", "more than"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\S")]
Texts = Annotated[list[Text], msgspec.Meta(min_length=1)]

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
SENTENCE_END = re.compile(r"(?<![.!?…。！？])(?:[.!?…]++[\"'”’)\]*_]*+(?=\s|\Z)|[。！？]++)")
ABBREVIATIONS = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "e.g", "i.e", "cf", "al", "vol", "approx", "a.m", "p.m"}
)
LONGEST_ABBREVIATION = 8
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
    """The number of sentences. One ends at . ! ? before white space, except after abbreviations and initials, and with its
    paragraph."""
    return sum(1 for paragraph in paragraphs(text) for sentence in _sentences(paragraph) if WORD.search(sentence))


def _sentences(paragraph: str) -> Iterator[str]:
    start = 0
    for end in SENTENCE_END.finditer(paragraph):
        if end[0] != "." or not _is_abbreviation(
            paragraph[max(start, end.start() - LONGEST_ABBREVIATION) : end.start()]
        ):
            yield paragraph[start : end.end()]
            start = end.end()
    yield paragraph[start:]


def _is_abbreviation(before: str) -> bool:
    """Whether a full stop belongs to an abbreviation. before: the characters up to it, enough for the longest abbreviation."""
    pieces = re.split(r"[\s(\[\"'“*_]", before)
    last = pieces[-1]
    return last.lower() in ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I")
