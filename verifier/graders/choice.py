"""Grader `choice`: the response states the letter of the right choice of a multiple-choice question.

The letter is looked for, in this order: in the last complete \\boxed{}; after the last "the answer is", "Answer:" or "I
choose"; in the last letter in bold; in a response that is nothing but the letter; and, by option, in the last letter that
stands alone. The first of these that states anything decides. Incorrect: no letter, a letter that is not a choice, two
different letters in one place ("B or C"), a letter that is denied ("not B"), and the text of another choice after the right
letter.

The reference is a letter, the index of the choice from 0, or, with `texts`, the full text of a choice. A reference that is not
one of these is a fault, and so is a text that two choices share. Every step is linear in the length of the response.
"""

import re
import string
from collections import deque
from typing import Any, ClassVar

from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders.math.extract import boxed

SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail
LONGEST_STATEMENT = 300
"""Characters that are read after "the answer is"."""

STATED = re.compile(
    r"\b(?:answer|choice|option)\b(?:\s+(?:choice|option|letter))?(?:\s+(?:is|would be|should be|must be))\b\s*:?"
    r"|\banswer\s*:|\bI\s+(?:choose|pick|select)\b",
    re.IGNORECASE,
)
NEGATED = re.compile(r"\s*(?:is\s+)?(?:not|neither|none|isn't|never|unclear|unknown)\b", re.IGNORECASE)
DENIED = re.compile(
    r"\b(?:not|neither|nor|none|never|unlikely|except|but|unclear|unknown)\b|n't\b|[!¬]\s*\(?[A-Za-z]\b"
    r"|\\(?:neg|lnot|not|sim|overline|bar|cancel|xcancel|bcancel|sout|complement)(?![a-zA-Z])",
    re.IGNORECASE,
)
BEHIND_LETTER = re.compile(r"\s*(?:\^|'(?!\w))")
LETTER = re.compile(r"^\W*[a-z](?![A-Za-z'])|(?<![A-Za-z'\\])[A-Z](?![A-Za-z'])|(?<![A-Za-z])[A-Z](?=')")
BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*")
DECORATION = re.compile(r"\\(?:text|textbf|mathbf|mathrm|textrm|mbox|rm|bf)\b|[{}$*_`\\]")
SENTENCE_END = re.compile(r"\n|[.;!?](?=\s|$)")


class ChoiceAnswer(Grader, frozen=True):
    version: ClassVar[str] = "2"

    choices: str = "ABCDE"
    """The letters, in the order of the choices."""
    texts: tuple[str, ...] = ()
    """The full texts of the choices, in order. With them, an answer or a reference may be a text."""
    last_letter: bool = False
    """Whether the last capital letter that stands alone counts when the response states no answer."""

    def __post_init__(self) -> None:
        if not self.choices or len(set(self.choices.upper())) != len(self.choices):
            raise ScoringFault(f"option choices = {self.choices!r} must be different letters")
        if not set(self.choices.upper()) <= set(string.ascii_uppercase):
            raise ScoringFault(f"option choices = {self.choices!r} must be letters from A to Z")
        if self.texts and len(self.texts) > len(self.choices):
            raise ScoringFault(f"option texts has {len(self.texts)} texts for {len(self.choices)} letters")
        if not all(map(_canonical, self.texts)):
            raise ScoringFault("option texts has an empty text")

    def check(self, reference: Any) -> None:
        self._letter_of_reference(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        gold = self._letter_of_reference(reference)
        stated = self._stated(response)
        if stated is None:
            return Judgment(False, "the response states no choice")
        letters = self._letters(stated)
        if not letters:
            return Judgment(False, f"no choice in {stated[:SHOWN_CHARACTERS]!r}")
        if len(letters) > 1:
            return Judgment(False, f"several choices in {stated[:SHOWN_CHARACTERS]!r}")
        (letter,) = letters
        return Judgment(True) if letter == gold else Judgment(False, f"choice {letter}")

    def _stated(self, response: str) -> str | None:  # noqa: PLR0911
        if (box := boxed(response)) is not None:
            return box.text or ""
        if stated := deque(STATED.finditer(response), maxlen=1):
            rest = response[stated[0].end() : stated[0].end() + LONGEST_STATEMENT].lstrip(" :*\n")
            if NEGATED.match(rest):
                return ""
            rest = rest.partition("**")[0]  # the answer was in bold up to there
            end = SENTENCE_END.search(rest, 2)
            return rest[: end.start()] if end else rest
        bold = [found[1] for found in BOLD.finditer(response) if self._letters(found[1])]
        if bold:
            return bold[-1]
        if len(response) <= LONGEST_STATEMENT and self._is_only_choice(response):
            return response
        if self.last_letter:
            alone = re.findall(rf"(?<![\w'-])([{self.choices.upper()}])(?![\w'-])", response)
            return alone[-1] if alone else None
        return None

    def _is_only_choice(self, response: str) -> bool:
        text = response.strip().splitlines()[0] if response.strip() else ""
        return bool(re.match(r"\(?[A-Za-z]\)?(?:$|[.):,])", text)) or _canonical(response) in map(
            _canonical, self.texts
        )

    def _letters(self, stated: str) -> set[str]:
        """The choices that the statement names. With texts, a text after a letter must be that letter's own."""
        plain = DECORATION.sub(" ", stated).strip()
        if (whole := self._letter_of_text(plain)) is not None:
            return {whole}
        if _denies(stated):
            return set()
        named = re.match(r"[\s(\[]*([A-Za-z])(?![A-Za-z'])[\s)\].:,-]*(.*)", plain, re.DOTALL)
        letters = self.choices.upper()
        found = set(re.findall(rf"(?<![\w'])([{letters}])(?![\w'])", plain))
        found |= set(re.findall(r"\(([A-Z])\)", plain))  # may be outside the choices, and is then wrong
        if named:
            first, rest = named[1].upper(), named[2].strip(" .")
            if "A" in found and not re.match(r"[\s(\[]*A\b", plain) and re.search(r"\bA [a-z]", plain):
                found.discard("A")  # the article
            if named[1].isupper() or not rest:
                found.add(first)
            if rest and (other := self._letter_of_text(rest)) is not None:
                found.add(other)
        return found

    def _letter_of_text(self, text: str) -> str | None:
        matches = [at for at, choice in enumerate(self.texts) if _canonical(choice) == _canonical(text)]
        return self.choices.upper()[matches[0]] if len(matches) == 1 else None

    def _letter_of_reference(self, reference: Any) -> str:
        letters = self.choices.upper()
        if isinstance(reference, int) and not isinstance(reference, bool):
            if 0 <= reference < len(self.texts or letters):
                return letters[reference]
            raise ScoringFault(
                f"reference {reference} is not an index into the {len(self.texts or letters)} choices, from 0"
            )
        if not isinstance(reference, str):
            raise ScoringFault(f"reference must be a letter, an index or a text, not {type(reference).__name__}")
        if (letter := self._letter_of_text(reference)) is not None:
            return letter
        bare = reference.strip().strip("().").upper()
        if len(bare) == 1 and bare in letters[: len(self.texts) or None]:
            return bare
        raise ScoringFault(f"reference {reference[:SHOWN_CHARACTERS]!r} is not one of the choices {letters}")


def _denies(stated: str) -> bool:
    """Whether the statement says what the answer is not, before the first letter or around it."""
    letter = LETTER.search(stated)
    before = stated[: letter.end()] if letter else stated
    return DENIED.search(before) is not None or (
        letter is not None and BEHIND_LETTER.match(stated, letter.end()) is not None
    )


def _canonical(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")
