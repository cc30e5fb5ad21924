"""Constraints of grader `instructions` on words, letters, case and punctuation."""

import re
import unicodedata
from typing import Annotated

import msgspec

from verifier.graders.instructions.text import Constraint, Count, Relation, Text, Texts, compare, folded, words

Letter = Annotated[str, msgspec.Meta(min_length=1, max_length=1, pattern=r"\S")]


class KeywordExistence(Constraint, frozen=True, tag="keywords:existence"):
    """Each keyword occurs, in any case, within longer words too: "sneaker" is in "sneakers"."""

    keywords: Texts

    def unmet(self, text: str) -> str | None:
        plain = folded(text)
        missing = [keyword for keyword in self.keywords if folded(keyword.strip()) not in plain]
        return f"without {missing[0]!r:.60}" if missing else None


class KeywordFrequency(Constraint, frozen=True, tag="keywords:frequency"):
    """The number of times that a keyword occurs, in any case, within longer words too; overlapping ones count once."""

    keyword: Text
    frequency: Count
    relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        count = folded(text).count(folded(self.keyword.strip()))
        return compare(count, self.relation, self.frequency, f"times {self.keyword.strip()!r:.60}")


class ForbiddenWords(Constraint, frozen=True, tag="keywords:forbidden_words"):
    """None of the words occurs, in any case. Parts of longer words do not count: "cat" is not in "category"."""

    forbidden_words: Texts

    def unmet(self, text: str) -> str | None:
        plain = folded(text)
        for word in self.forbidden_words:
            wanted = re.escape(folded(word.strip()))
            if re.search(rf"(?<![^\W_]){wanted}(?![^\W_])", plain):
                return f"contains {word.strip()!r:.60}"
        return None


class LetterFrequency(Constraint, frozen=True, tag="keywords:letter_frequency"):
    """The number of times that a letter, or any other character, occurs, in any case."""

    letter: Letter
    let_frequency: Count
    let_relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        count = text.lower().count(self.letter.lower())
        return compare(count, self.let_relation, self.let_frequency, f"times {self.letter!r}")


class CapitalWordFrequency(Constraint, frozen=True, tag="change_case:capital_word_frequency"):
    """The number of words in capital letters only; "I" and "2D" are such words."""

    capital_frequency: Count
    capital_relation: Relation = "at least"

    def unmet(self, text: str) -> str | None:
        count = sum(word.isupper() for word in words(text))
        return compare(count, self.capital_relation, self.capital_frequency, "words in capitals")


class EnglishCapital(Constraint, frozen=True, tag="change_case:english_capital"):
    """Every letter is a capital, and there is one. The language is not judged."""

    def unmet(self, text: str) -> str | None:
        return None if text.isupper() else "not all in capital letters"


class EnglishLowercase(Constraint, frozen=True, tag="change_case:english_lowercase"):
    """Every letter is in lower case, and there is one. The language is not judged."""

    def unmet(self, text: str) -> str | None:
        return None if text.islower() else "not all in lower-case letters"


class NoComma(Constraint, frozen=True, tag="punctuation:no_comma"):
    """There is no comma, of any script."""

    def unmet(self, text: str) -> str | None:
        text = unicodedata.normalize("NFKC", text)
        return next((f"contains {comma!r}" for comma in ",，、،⸴⹁" if comma in text), None)


WordingConstraint = (
    KeywordExistence
    | KeywordFrequency
    | ForbiddenWords
    | LetterFrequency
    | CapitalWordFrequency
    | EnglishCapital
    | EnglishLowercase
    | NoComma
)
