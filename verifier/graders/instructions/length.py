"""Constraints of grader `instructions` on how long a response is and how it is divided."""

import re
from typing import Literal

from verifier.graders.instructions.text import (
    Constraint,
    Count,
    Positive,
    Relation,
    Text,
    compare,
    count_sentences,
    folded,
    paragraphs,
    words,
)

BOLD_ITALICS = re.compile(r"(?<![\w*])\*{3}(?=[^\s*])[^*\n]*(?<=[^\s*])\*{3}(?![\w*])")
AROUND_WORDS = "\"'\u201c\u201d\u2018\u2019*_#>.,!?:;()[]{}~`|<=+\u2022\u2013\u2014-"


class NumberWords(Constraint, frozen=True, tag="length_constraints:number_words"):
    """The number of words; "don't" and "well-known" are one each."""

    num_words: Count
    relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        return compare(len(words(text)), self.relation, self.num_words, "words")


class NumberSentences(Constraint, frozen=True, tag="length_constraints:number_sentences"):
    """The number of sentences; the end of a paragraph ends a sentence too, so that a heading counts as one."""

    num_sentences: Count
    relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        return compare(count_sentences(text), self.relation, self.num_sentences, "sentences")


class NumberParagraphs(Constraint, frozen=True, tag="length_constraints:number_paragraphs"):
    """The number of paragraphs, none of them empty. Lines of *** (the default) or blank lines separate them; bold italics such as
    ***this*** do not."""

    num_paragraphs: Count
    relation: Relation = "exactly"
    separator: Literal["***", "blank line"] = "***"

    def unmet(self, text: str) -> str | None:
        if self.separator == "blank line":
            return compare(len(paragraphs(text)), self.relation, self.num_paragraphs, "paragraphs")
        parts = [part.strip() for part in BOLD_ITALICS.sub("text", text).split("***")]
        # A divider at the very beginning or end separates nothing.
        parts = parts[not parts[0] : len(parts) - (not parts[-1])]
        if not all(parts):
            return "an empty paragraph between two dividers"
        return compare(len(parts), self.relation, self.num_paragraphs, "paragraphs")


class NthParagraphFirstWord(Constraint, frozen=True, tag="length_constraints:nth_paragraph_first_word"):
    """The exact number of paragraphs, separated by blank lines; the nth (from 1) begins with the word, or with several
    words, in any case."""

    num_paragraphs: Positive
    nth_paragraph: Positive
    first_word: Text

    def __post_init__(self) -> None:
        if self.nth_paragraph > self.num_paragraphs:
            raise ValueError(f"nth_paragraph = {self.nth_paragraph} is beyond num_paragraphs = {self.num_paragraphs}")

    def unmet(self, text: str) -> str | None:
        found = paragraphs(text)
        if fault := compare(len(found), "exactly", self.num_paragraphs, "paragraphs"):
            return fault
        wanted = [word.strip(AROUND_WORDS) for word in folded(self.first_word).split()]
        begins = [
            word.strip(AROUND_WORDS) for word in folded(found[self.nth_paragraph - 1]).split(maxsplit=2 * len(wanted))
        ]
        begins = [word for word in begins if word][: len(wanted)]
        # IFEval cuts a word at the first mark, so that "it" begins "It's late".
        cut = [*begins[:-1], re.split(r"[.,?!'\"]", begins[-1])[0]] if begins else []
        return None if wanted in (begins, cut) else f"paragraph {self.nth_paragraph} begins otherwise"


class NumberCharacters(Constraint, frozen=True, tag="length_constraints:number_characters"):
    """The number of characters, without white space around the response. Not in IFEval."""

    num_characters: Count
    relation: Relation = "at most"

    def unmet(self, text: str) -> str | None:
        return compare(len(text), self.relation, self.num_characters, "characters")


LengthConstraint = NumberWords | NumberSentences | NumberParagraphs | NthParagraphFirstWord | NumberCharacters
