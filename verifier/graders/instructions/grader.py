"""Grader `instructions`: the response meets constraints that a program can check, as in IFEval.

The reference is a list of constraints, each an object with its `type` and parameters; types and parameters are named as in
IFEval (arXiv:2311.07911), so that its rows and those of its descendants need no translation:

    [{"type": "length_constraints:number_words", "num_words": 300, "relation": "at least"}, {"type": "punctuation:no_comma"}]

The types are the classes in length.py, wording.py and layout.py. A `relation` may be "less than", "at most", "exactly", "at
least" or "more than". A parameter that is null counts as absent, as Parquet and IFEval's own rows write it; an unknown
parameter and an unknown type are faults.

Failure modes and departures from IFEval:
- Language is not judged: `language:response_language` is an unknown type, and the english_ types check case alone.
- Sentences are told apart by punctuation and lists of English abbreviations, not by a trained model; a number that begins a
  line, as in a list, and a quotation within a sentence end none. "don't" and
  "well-known" are one word each; a text without spaces, as in Chinese, is one word up to its punctuation.
- Where IFEval's own check is met by less than its instruction asks for, this one is strict: keywords are not regular
  expressions, sections and bullets stand at the beginning of a line, no passage is highlighted twice, products and escaped stars
  highlight nothing, bold italics divide nothing, exactly one of the
  options of a constrained response occurs, JSON is an object or an array, a repeated request is followed by an answer.
- Bullets may also be + or a round point, and need a space; "I'm" is one word, and not in capitals; a comma of any script is a
  comma; a postscript begins a line and says something.
- Invisible characters, such as a zero-width space, count as absent.
- An empty response meets no constraint, not even "no comma".
- Constraints say nothing about sense: combine them with a judge where that matters.
"""

from typing import Any, ClassVar

import msgspec

from verifier.grader import Grader, Judgment, ScoringFault
from verifier.graders.instructions.layout import LayoutConstraint
from verifier.graders.instructions.length import LengthConstraint
from verifier.graders.instructions.text import INVISIBLE
from verifier.graders.instructions.wording import WordingConstraint

MAX_CONSTRAINTS = 100
NAMED_CONSTRAINTS = 3  # unmet ones, in the detail
AnyConstraint = LengthConstraint | WordingConstraint | LayoutConstraint


class Instructions(Grader, frozen=True):
    version: ClassVar[str] = "4"

    all_must_hold: bool = True
    """If true, the reward is 1 when every constraint holds and 0 otherwise; if false, the share of those that hold. Either
    way, only a response that meets all of them is correct."""

    def check(self, reference: Any) -> None:
        _constraints(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        constraints, text = _constraints(reference), INVISIBLE.sub("", response).strip()
        if not text:
            return Judgment(False, "an empty response")
        unmet = [
            f"{constraint.__struct_config__.tag}: {fault}"
            for constraint in constraints
            if (fault := constraint.unmet(text)) is not None
        ]
        detail = "; ".join(unmet[:NAMED_CONSTRAINTS]) + ("; ..." if len(unmet) > NAMED_CONSTRAINTS else "")
        reward = None if self.all_must_hold else 1 - len(unmet) / len(constraints)
        return Judgment(not unmet, detail, reward)


def _constraints(reference: Any) -> list[AnyConstraint]:
    """Raises ScoringFault, naming the place of what is wrong."""
    if not isinstance(reference, list) or not 1 <= len(reference) <= MAX_CONSTRAINTS:
        raise ScoringFault(
            f'reference must be a list of 1 to {MAX_CONSTRAINTS} constraints like {{"type": "punctuation:no_comma"}}'
        )
    given = [
        {name: _whole(value) for name, value in one.items() if value is not None} if isinstance(one, dict) else one
        for one in reference
    ]
    try:
        return msgspec.convert(given, list[AnyConstraint])
    except msgspec.ValidationError as fault:
        raise ScoringFault(f"reference: {fault}") from fault


def _whole(value: Any) -> Any:
    """A column of counts with nulls in it comes out of pandas as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
