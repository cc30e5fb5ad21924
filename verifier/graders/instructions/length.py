"""Constraints of grader `instructions` on how long a response is and how it is divided."""

from typing import Literal

from verifier.graders.instructions.text import (
    Constraint,
    Count,
    Positive,
    Relation,
    Text,
    compare,
    count_sentences,
    paragraphs,
    words,
)


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
    """The number of paragraphs, none of them empty; lines of *** (the default) or blank lines separate them."""

    num_paragraphs: Count
    relation: Relation = "exactly"
    separator: Literal["***", "blank line"] = "***"

    def unmet(self, text: str) -> str | None:
        if self.separator == "blank line":
            return compare(len(paragraphs(text)), self.relation, self.num_paragraphs, "paragraphs")
        parts = [part.strip() for part in text.split("***")]
        # A divider at the very beginning or end separates nothing.
        parts = parts[not parts[0] : len(parts) - (not parts[-1])]
        if not all(parts):
            return "an empty paragraph between two dividers"
        return compare(len(parts), self.relation, self.num_paragraphs, "paragraphs")


class NthParagraphFirstWord(Constraint, frozen=True, tag="length_constraints:nth_paragraph_first_word"):
    """The exact number of paragraphs, separated by blank lines; the nth (from 1) begins with the word, in any case."""

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
        first = found[self.nth_paragraph - 1].split(maxsplit=1)[0].strip("\"'“”‘’*_#>.,!?:;()").casefold()
        return (
            None if first == self.first_word.strip().casefold() else f"paragraph {self.nth_paragraph} begins otherwise"
        )


class NumberCharacters(Constraint, frozen=True, tag="length_constraints:number_characters"):
    """The number of characters, without white space around the response. Not in IFEval."""

    num_characters: Count
    relation: Relation = "at most"

    def unmet(self, text: str) -> str | None:
        return compare(len(text), self.relation, self.num_characters, "characters")


LengthConstraint = NumberWords | NumberSentences | NumberParagraphs | NthParagraphFirstWord | NumberCharacters
