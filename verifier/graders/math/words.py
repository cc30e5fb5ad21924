"""Answers in words, and words that deny an answer."""

import re

from verifier.graders.math.notation import plain
from verifier.graders.math.notation_rules import FUNCTIONS

WORDS_ONLY = re.compile(r"(?:[\s({]*+\\text\s*\{[^{}]*\}[\s)}]*+)++")
PLAIN_WORD = re.compile(r"[A-Z]{3,}|[A-Za-z]{4,}|[Yy]es|[Nn]o|[Oo]dd|[Oo]ne|[Tt]wo|[Tt]en")
"""A word, or letters in an order: as a product, east would be seat."""
BARE_WORD = rf"(?:[A-Za-z][A-Za-z']*|\\(?:land|lor|{FUNCTIONS})(?![a-zA-Z]))"
BARE_WORDS = re.compile(rf"{BARE_WORD}(?:[ -]+{BARE_WORD}){{1,9}}")
LONG_WORD = re.compile(
    r"[A-Za-z]+-[A-Za-z]+-[A-Za-z]+|(?<![A-Za-z\\])[A-Za-z']{4,}|\\(?:max|min) \\l(?:and|or) \\(?:max|min)"
)
ARTICLE = re.compile(r"(?:the|an?) (?=\w)")
CIRCLED = re.compile(r"(?:\\textcircled\s*\{\s*\d+\s*\}[\s,;.]*(?:\\land\s*)?)+")
"""Statements by their circled numbers: ①③, which is not 13."""
FUNCTION_WORD = re.compile(rf"\\({FUNCTIONS})(?![a-zA-Z])")
DENIAL = re.compile(r"\\text\s*\{[^{}]*\b(?:not|never|no|wrong|incorrect|false)\b", re.IGNORECASE)
NO_SOLUTION = frozenset(
    {"no solution", "no solutions", "no real solution", "no real solutions", "empty set", "the empty set", "none"}
    | {"no solution exists", "no solutions exist", "there is no solution", "there are no solutions"}
    | {
        "无解",
        "無解",
        "无实数解",
        "空集",
        "解なし",
        "нет решений",
        "keine lösung",
        "pas de solution",
        "aucune solution",
    }
    | {"sin solución", "no hay solución", "nessuna soluzione", "sem solução"}
)


def words_of(latex: str) -> str:
    """The answer as text, in lower case and without brackets, punctuation and the article before it."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", plain(latex))
    text = re.sub(r"\\textcircled\s*\{\s*(\d+)\s*\}", r" circled\1 ", text)
    text = re.sub(r"\\(land|lor)(?![a-zA-Z])", lambda found: " and " if found[1] == "land" else " or ", text)
    text = FUNCTION_WORD.sub(r"\1", text)
    words = " ".join(re.sub(r"[(){}\[\].,;:!?\"'*]", " ", text).casefold().split())
    return ARTICLE.sub("", words, count=1) if ARTICLE.match(words) else words


def same_words(one: str, other: str) -> bool:
    """Whether two answers say the same. What "and" joins has no order."""
    return one == other or sorted(one.split(" and ")) == sorted(other.split(" and "))


def says_no_solution(text: str) -> bool:
    return words_of(text) in NO_SOLUTION


def is_text(text: str) -> bool:
    """Nothing but \\text{} and brackets around it, circled numbers, or several words."""
    return any(form.fullmatch(text) for form in (WORDS_ONLY, CIRCLED)) or _is_bare_words(text)


def _is_bare_words(text: str) -> bool:
    """Several words that stand free, at least one of them too long for a product of letters."""
    return BARE_WORDS.fullmatch(text) is not None and LONG_WORD.search(text) is not None


def is_letter_in_text(text: str) -> bool:
    """One letter, written as text: a variable, or the letter of a choice."""
    return is_text(text) and re.fullmatch(r"[a-z]", words_of(text)) is not None


def without_text(text: str) -> str:
    return re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)


def is_words(text: str) -> bool:
    """Text, or bare letters that are a word rather than a product."""
    return is_text(text) or PLAIN_WORD.fullmatch(text) is not None
