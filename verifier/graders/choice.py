"""Grader `choice`: the response states the letter of the right choice of a multiple-choice question.

The letter is looked for, in this order: in the last complete \\boxed{}; in the last <answer> tags; after the last "the answer
is", "Answer:" or "I choose", in English or a language of stated_choice.py; in the last "C is correct"; in the last letter in
bold; in a last line, or a response, that is nothing but the letter, with the choice's own text or a reason behind it; and,
by option, in the last letter that stands alone. The first of these that states anything decides. What follows the letter in a
new sentence, or as a reason, does not count, nor do letters that are rejected ("not B but C"). Incorrect: no letter, a
letter that is not a choice, two different letters in one place ("B or C"), a letter that is denied ("not B"), and the text of
another choice after the right letter.

The reference is a letter, the index of the choice from 0, or, with `texts`, the full text of a choice. Choices may be digits;
an integer is then the digit, not an index. A reference that is not one of these is a fault, and so is a text that two
choices share. Every step is linear in the length of the response.
"""

import re
import unicodedata
from typing import Any, ClassVar

from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders import stated_choice
from verifier.graders.math.extract import boxed

SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail
LABELS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class ChoiceAnswer(Grader, frozen=True):
    version: ClassVar[str] = "4"

    choices: str = "ABCDE"
    """The letters, or digits, in the order of the choices."""
    texts: tuple[str, ...] = ()
    """The full texts of the choices, in order. With them, an answer or a reference may be a text."""
    last_letter: bool = False
    """Whether the last capital letter that stands alone counts when the response states no answer."""

    def __post_init__(self) -> None:
        if not self.choices or len(set(self.choices.upper())) != len(self.choices):
            raise ScoringFault(f"option choices = {self.choices!r} must be different letters")
        labels = set(self.choices.upper())
        if not labels <= LABELS or (len(labels) > 1 and len({label.isdigit() for label in labels}) > 1):
            raise ScoringFault(f"option choices = {self.choices!r} must be letters from A to Z, or digits alone")
        if self.texts and len(self.texts) > len(self.choices):
            raise ScoringFault(f"option texts has {len(self.texts)} texts for {len(self.choices)} letters")
        if not all(map(_canonical, self.texts)):
            raise ScoringFault("option texts has an empty text")

    def check(self, reference: Any) -> None:
        self._letter_of_reference(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        gold = self._letter_of_reference(reference)
        stated = self._stated(unicodedata.normalize("NFKC", response))  # full-width letters are letters
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
        if (tagged := stated_choice.tagged(response)) is not None:
            return tagged
        if (stated := stated_choice.stated(response)) is not None:
            return stated
        if (correct := stated_choice.called_correct(response)) is not None:
            return correct
        bold = [found for found in stated_choice.bold(response) if self._letters(found)]
        if bold:
            return bold[-1]
        lines = response.strip().splitlines()
        for line in (lines[0], lines[-1]) if lines else ():
            if (line is lines[-1] or len(response) <= stated_choice.LONGEST) and self._is_only_choice(line):
                return stated_choice.without_lead(line)
        if lines and (left := stated_choice.left(lines[-1])) is not None:
            return left
        if len(response) <= stated_choice.LONGEST and self._letter_of_text(response) is not None:
            return response
        if self.last_letter:
            alone = re.findall(
                rf"{stated_choice.BEFORE}(?<!-)([{self.choices.upper()}]){stated_choice.BEHIND}(?!-)", response
            )
            return alone[-1] if alone else None
        return None

    def _is_only_choice(self, line: str) -> bool:
        line = stated_choice.without_lead(line) if len(line) <= stated_choice.LONGEST else line
        found = stated_choice.ONLY.match(line) if len(line) <= stated_choice.LONGEST else None
        if found is None:
            return False
        rest = line[found.end() :].lstrip(" -\u2013\u2014*_")
        separated = found[2] or not rest.strip()
        return bool(separated) or self._letter_of_text(rest) is not None

    def _letters(self, stated: str) -> set[str]:
        """The choices that the statement names. With texts, a text after a letter must be that letter's own."""
        plain = stated_choice.DECORATION.sub(" ", stated).strip()
        if (whole := self._letter_of_text(plain)) is not None:
            return {whole}
        if len(plain) > stated_choice.LONGEST_READ:
            return set()
        plain = stated_choice.without_rejected(plain)
        if stated_choice.denies(plain) or stated_choice.denies_in_tex(stated):
            return set()
        plain, behind = stated_choice.split(plain)
        letters = self.choices.upper()
        found = set(re.findall(rf"{stated_choice.BEFORE}([{letters}]){stated_choice.BEHIND}", plain))
        found |= set(re.findall(r"\(([A-Z])\)", plain))  # may be outside the choices, and is then wrong
        found -= stated_choice.words_of_one_letter(plain)
        if named := stated_choice.FIRST.match(plain):
            first, rest = named[1].upper(), named[2].strip(" .")
            if (
                named[1].isupper() or named[1].isdigit() or not rest
            ) and first not in stated_choice.words_of_one_letter(plain):
                found.add(first)
            for text in (rest, behind):
                if text and (other := self._letter_of_text(text)) is not None:
                    found.add(other)
        return found

    def _letter_of_text(self, text: str) -> str | None:
        matches = [at for at, choice in enumerate(self.texts) if _canonical(choice) == _canonical(text)]
        return self.choices.upper()[matches[0]] if len(matches) == 1 else None

    def _letter_of_reference(self, reference: Any) -> str:
        letters = self.choices.upper()
        if isinstance(reference, int) and not isinstance(reference, bool):
            if letters.isdigit():
                return self._letter_of_reference(str(reference))
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


def _canonical(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")
