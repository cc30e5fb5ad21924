"""Grader `math`: the answer in the last complete box equals the reference answer mathematically, by math-verify's parser.

The last complete \\boxed{} decides and text outside it is ignored. A response takes this way: extract.py finds its answer,
notation.py rewrites it in one way of writing, read.py reads it by an ordered table of readers into one of forms.py, and
compare.py holds that against the reference, with equality.py for two expressions.

Failure modes. Incorrect, with a detail: no answer, an empty or unclosed box, an answer that is not wholly one of the forms of
forms.py, several answers where the reference has one. Right answers judged incorrect: a form that math-verify's parser does
not know, a decimal rounding of an exact reference (unless `tolerance` admits it), a quantity in another unit (500 cm for
5 m), an identity that holds on a part of the plane only (ln x^2 and 2 ln x), families of solutions that are shifted (k and
k + 1), inequalities that must be solved first unless they are linear, one absolute value aside (their variables are real:
|z| < 1 is -1 < z < 1), powers and inverses of matrices. Grading may hang in an integral or a limit: it sets no time limits
of its own, and the pool kills what is too slow. Importing and warming this up takes a second and 80 MB, so only grader
processes do it.
"""

import re
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version as version_of_package
from typing import Any, ClassVar, Literal

from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders.blank import is_blank
from verifier.graders.math import extract
from verifier.graders.math.compare import Percent, Rules
from verifier.graders.math.expression import Unreadable
from verifier.graders.math.forms import Answer, Words
from verifier.graders.math.lists import parameter_of
from verifier.graders.math.notation import plain
from verifier.graders.math.qualifier import qualified
from verifier.graders.math.read import read
from verifier.graders.math.words import same_words, words_of

NOTHING = re.compile(r"\\text(?![a-zA-Z])|[{}$.,;:()]")
"""What may surround an answer and is none."""
SHOWN_CHARACTERS = 60  # of a wrong answer, in the detail

FIRST_USE = (
    (r"x + y \le 3", r"3 \ge y + x"),
    ("x^2 + 2x + 1", "(x + 1)^2"),
    (r"\sin^2 x + \cos^2 x", "1"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 2 & 1 \\ 3 & 4 \end{pmatrix}"),
    ("[1, 2)", r"(1, 2] \cup (3, \infty)"),
    (r"\sqrt{2} + \frac{1}{3}", r"\frac{1 + 3\sqrt{2}}{3}"),
)


class MathAnswer(Grader, frozen=True):
    version: ClassVar[str] = f"7 math-verify {version_of_package('math-verify')}"
    cached: ClassVar[bool] = True

    unboxed: Literal["last", "incorrect"] = "last"
    """What to do with a response without any box: judge its last stated answer, or call it incorrect."""
    tolerance: float = 0.0
    """Largest difference between two numbers, as a share of the reference; 0 means exactly equal."""
    percent: Percent = "either"
    """What 50% equals on a side without the sign: 0.5 (`value`), 50 (`unit`), or both (`either`); but a reference between -1
    and 1 without the sign is a share, so that 0.5% never equals 0.5."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ScoringFault(f"option tolerance = {self.tolerance} must be at least 0 and below 1")

    @classmethod
    def warm_up(cls) -> None:
        """sympy and the parser's grammar build tables at their first use, a quarter of a second each."""
        for one, another in FIRST_USE:
            cls().score(f"\\boxed{{{one}}}", another)

    def check(self, reference: Any) -> None:
        text = _reference_text(reference)
        _read_reference(text)
        if not (judgment := self.score(f"\\boxed{{{text}}}", reference)).correct:
            raise ScoringFault(f"reference {text[:SHOWN_CHARACTERS]!r} is not equal to itself: {judgment.detail}")

    def score(self, response: str, reference: Any) -> Judgment:
        gold_text = _reference_text(reference)
        gold = _read_reference(gold_text)
        found = extract.boxed(response)
        if found is None:
            if self.unboxed == "incorrect":
                return Judgment(False, "the response has no box")
            found = extract.stated(response)
        if found.text is None:
            return Judgment(False, found.why)
        try:
            equal = self._equal(gold, gold_text, found.text)
        except (Unreadable, RecursionError) as fault:
            return Judgment(
                False, f"{fault if isinstance(fault, Unreadable) else 'nested too deep'}: {_shown(found.text)}"
            )
        except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError) as fault:
            # These are sympy's, from values without an order or a number. The reference is sound: it equals itself.
            return Judgment(False, f"the answer cannot be compared ({type(fault).__name__}): {_shown(found.text)}")
        return Judgment(True) if equal else Judgment(False, f"answer {_shown(found.text)}")

    def _equal(self, gold: Answer, gold_text: str, text: str) -> bool:
        if plain(text) == plain(gold_text):
            return True
        if isinstance(gold, Words):
            return same_words(words_of(text), words_of(gold_text))
        text = _with_parameter_of(gold_text, text)
        answer = read(text)
        if isinstance(answer, Words):
            words = words_of(text)
            return same_words(words, words_of(gold_text)) and words.replace(" ", "").isalpha()
        return Rules(self.tolerance, self.percent).same(gold, answer)


def _with_parameter_of(gold_text: str, text: str) -> str:
    """n\\pi, n \\in \\mathbb{Z} becomes k\\pi where the reference has k. Raises Unreadable when the two stand for different kinds
    of numbers."""
    (gold_letter, gold_kind), (letter, kind) = parameter_of(gold_text), parameter_of(text)
    if not (gold_letter and letter) or (gold_letter, gold_kind) == (letter, kind):
        return text
    if gold_kind and kind and gold_kind != kind:
        raise Unreadable("a parameter of another kind")
    behind = qualified(plain(text))
    text = behind.answer if behind else text
    tokens = re.findall(r"\\[a-zA-Z]+|.", text, re.DOTALL)
    return text if gold_letter in tokens else "".join(gold_letter if token == letter else token for token in tokens)


def _shown(text: str) -> str:
    return repr(text[: SHOWN_CHARACTERS // 2])


def _reference_text(reference: Any) -> str:
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        raise ScoringFault(f"reference must be a string or a number, not {type(reference).__name__}")
    if isinstance(reference, float):
        return f"{Decimal(repr(reference)):f}"
    text = str(reference)
    if (box := extract.boxed(text)) is not None:
        if box.text is None:
            raise ScoringFault(f"reference {text[:SHOWN_CHARACTERS]!r}: {box.why}")
        return box.text
    return text.strip()


@lru_cache(maxsize=1024)  # the samples of a group share their reference and come one after another
def _read_reference(text: str) -> Answer:
    """Raises ScoringFault when the reference cannot be read, or is not equal to itself."""
    shown = repr(text[:SHOWN_CHARACTERS])
    if len(text) > extract.LONGEST_ANSWER:
        raise ScoringFault(f"reference of {len(text)} characters: {extract.LONGEST_ANSWER} can be judged")
    if is_blank(NOTHING.sub("", plain(text))):
        raise ScoringFault(f"reference {shown} is empty: there is nothing to compare an answer with")
    try:
        answer = read(text)
        if not isinstance(answer, Words) and not Rules().same(answer, answer):
            raise ScoringFault(f"reference {shown} is not equal to itself")
    except (
        Unreadable,
        RecursionError,
        ArithmeticError,
        AttributeError,
        TypeError,
        ValueError,
        NotImplementedError,
    ) as fault:
        raise ScoringFault(f"reference {shown} cannot be read: {fault}") from fault
    return answer
