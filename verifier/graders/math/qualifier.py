"""Qualifiers behind an answer, which say only where its letters come from: f(x) = cx \\text{ for any real } c."""

import re
from typing import NamedTuple

from verifier.graders.math.structure import top_level

BEGIN = re.compile(
    r"[,;(]?\s*(?:\\text\s*\{\s*[,;(]*\s*(?:for|where|with|on)\b|(?<![a-zA-Z\\])(?:for|where|with)\b|\\forall\b"
    r"|[a-zA-Z]\s*\\text\s*\{\s*(?:is|are|an?|constant|integer|real|arbitrary)\b"
    r"|\\text\s*\{\s*\(\s*\}\s*(?=[a-zA-Z]\s*\\text\s*\{\s*(?:is|are|an?)\b))|\(\s*(?=[a-zA-Z]\s*\\in(?![a-zA-Z]))"
)
LETTER = r"(?:\\[a-zA-Z]+|[a-zA-Z])(?:_(?:\{\w+\}|\w))?"
WORD = (
    r"(?:all|any|every|each|some|arbitrary|an?|the|real|integer|integral|positive|negative|non-?negative|natural|whole|rational"
    r"|complex|fixed|non-?zero|constant|prime|even|odd|numbers?|integers?|constants?|reals|values?|choice|of|parameters?|scalars?)"
)
CONDITION = (
    r"\s*(?:\\(?:in|ge|le|ne|notin)(?![a-zA-Z])|[<>])(?:(?!\\l(?:and|or)(?![a-zA-Z])|\bfor\b)[^=])*"
    rf"|\s*(?:is|are)\s+(?:{WORD}\s*)+|\s*(?:{WORD}\s*)+"
)
LONGEST = 120  # characters of a qualifier
TAIL = re.compile(
    rf"(?:(?:for|where|with)\b\s*|\\forall\s*)?(?:{WORD}\s+)*(?:(?P<letter>{LETTER})(?:\s*,\s*{LETTER})*(?:{CONDITION})?"
    rf"|(?:{WORD}\s*)+(?:(?:of\s+)?{LETTER})?)\s*|on\s+\\mathbb\s*\{{?\s*[RQZNC]\s*\}}?\s*"
)
AHEAD = re.compile(r"(?:\\text\s*\{\s*)?[Ff]or\s+(?:all|every|any|each)\b")
PAUSE = re.compile(r"[,:;]")
KINDS = {
    "R": r"\breals?\b|mathbb\s*\{?\s*R",
    "Z": r"\binteg(?:er|ral)|mathbb\s*\{?\s*Z",
    "N": r"\bnatural\b|mathbb\s*\{?\s*N",
}


class Qualified(NamedTuple):
    answer: str
    letter: str = ""
    """The letter that the qualifier is about; empty when it names none, or several."""
    kind: str = ""
    """R, Z or N where the qualifier says which numbers the letter stands for."""


def qualified(text: str) -> Qualified | None:
    """None without a qualifier. One that fixes a letter, such as "for k = 2", is none."""
    if "\\begin" in text:  # in an environment, "for" stands before a condition
        return None
    if AHEAD.match(text):
        for pause in top_level(PAUSE, text):
            answer = text[pause.end() :].strip()
            if "=" in answer and (ahead := _read(answer, text[: pause.start()])) is not None:
                return ahead
    for found in top_level(BEGIN, text):
        answer = text[: found.start()].strip().rstrip(",;").rstrip()
        if (behind := _read(answer, text[found.start() :])) is not None:
            return behind
    return None


def _read(answer: str, qualifier: str) -> Qualified | None:
    """The two, if the second is a qualifier."""
    tail = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", qualifier)
    tail = " ".join(re.sub(r"^[\s,;(]+|[\s.;)]+$", "", tail).split())
    form = TAIL.fullmatch(tail[:1].lower() + tail[1:]) if len(tail) <= LONGEST else None
    if not answer or form is None:
        return None
    kind = next((kind for kind, said in KINDS.items() if re.search(said, tail)), "")
    return Qualified(answer, form["letter"] or "", kind)
