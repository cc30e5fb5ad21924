"""Which part of a response is its answer: the last complete box, or the last stated answer when there is no box.

The box that closes last decides, even if an unclosed box follows it: an open box states nothing. A box inside the deciding
box belongs to its content. Everything here takes time linear in the length of the response.
"""

import re
from collections import deque
from typing import NamedTuple

from verifier.graders.math.units import CANONICAL, PARTS

LONGEST_ANSWER = 2_000
"""Characters. A longer one is a text rather than an answer, and could take long to read."""

LONGEST_SHORT = 200
"""Characters. A response of at most this many may be nothing but its answer."""

# A brace behind a backslash is printed and groups nothing.
# Data that was escaped once too often has \\boxed.
BRACES = re.compile(r"(?<!\\)\\+boxed\s*\{|\\.|[{}]", re.DOTALL)
STATED = re.compile(
    r"(?:final\s+answer|answer|result)(?:\s+(?:to|for)\s+[^.:\n]{1,60})?\s*(?:is|are|=|:)+[\s*_:]*"
    r"|^[ \t]*+\**+[ \t]*+(?:ans|answer)\b[\s*:.)]*|####",
    re.IGNORECASE | re.MULTILINE,
)
SEGMENT = re.compile(
    r"\$\$(?:\\\$|[^$]){1,2000}\$\$|\$(?:\\\$|[^$\n]){1,2000}\$(?!\d)"
    r"|\\\((?:[^\\]|\\(?![()])){1,2000}\\\)|\\\[(?:[^\\]|\\(?![\[\]])){1,2000}\\\]"
)
NUMBER = re.compile(
    r"(?<![\w.])[-−+]?[$€£]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?:\s?/\s?\d+)?(?:\s*\\?%|\s+percent\b)?"
)
WORD = re.compile(r"(?<![\w\\{])[A-Za-z']{2,}(?![\w{(])")
ANOTHER = re.compile(r"\s*[,;(/]*\s*(?:(?:or|and|maybe|perhaps|possibly|but)\b|[/|$\d]|\\\()", re.IGNORECASE)
NOT_THE_NUMBER = re.compile(
    r"\b(?:not|never|neither|nor|no|but|except|than|at (?:least|most)|half|third|quarter|twice|double|triple|square|cube|root"
    r"|squared|cubed|minus|negative|plus|about|approximately|roughly|around|nearly|almost|either|or|between|hundred|thousand"
    r"|million|billion|dozen)\b|n't\b|\btimes\s+\$?\d",
    re.IGNORECASE,
)
NUMBER_GOES_ON = re.compile(r"\s*(?:[+/^=>!\\]|<(?!\|)|\*(?!\*)|-(?![A-Za-z]{2}))|\(|_|[A-Za-z](?![A-Za-z])")
"""What shows, behind a number, that it is only the first part of an expression, such as 5 in 5x."""
UNIT = re.compile(r"[\s*_-]*(cubic\s+)?([A-Za-z]+)((?:\s*/\s*|\s+per\s+)[A-Za-z]+)?([²³])?(?![\w^])")
CONCLUSION = re.compile(r"\b(?:Therefore|Thus|Hence|So|Consequently)\b")
CLAIM = re.compile(r"\b(?:is|are|equals|(?:in|de)creases by)\s+(?:exactly\s+|only\s+)?(?=[-−+$€£\d])")
NO_CLAIM = re.compile(
    r"\b(?:if|when|unless|until|would|could|might|may|maybe|perhaps|possibly|probably|suppos\w+|assum\w+|guess\w*|and|cases?"
    r"|impossible|wrong|incorrect|false|fails?|exclud\w+|contradict\w*)\b",
    re.IGNORECASE,
)
REASON = re.compile(r"\s*,?\s*(?:since|because|as|which|where|so)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.;!?](?=\s|$)|\n")


class Found(NamedTuple):
    """An answer, or the reason why there is none."""

    text: str | None
    """None when there is no answer to judge."""
    why: str = ""


def boxed(response: str) -> Found | None:
    """The content of the last complete box. None when the response opens no box at all."""
    open_groups: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    seen = False
    for token in BRACES.finditer(response):
        text = token[0]
        if text.startswith("\\") and text.endswith("{") and "boxed" in text:
            seen = True
            open_groups.append((token.end(), True))
        elif text == "{":
            open_groups.append((token.end(), False))
        elif text == "}" and open_groups:
            start, is_box = open_groups.pop()
            if is_box:
                last = (start, token.start())
    if last is None:
        return Found(None, "the box is not closed") if seen else None
    return _checked(response[last[0] : last[1]], "the box is empty")


def stated(response: str) -> Found:
    """The answer of a response without a box, from the first of these that there is: what the sentence after the last "the
    answer is" or #### states; all of a short response; the number in a conclusion behind the last formula; the last
    formula; the last number."""
    anchor = _last(STATED, response)
    if anchor is not None and (found := _of_sentence(response[anchor.end() : anchor.end() + LONGEST_ANSWER].lstrip())):
        return found
    if len(short := response.strip()) <= LONGEST_SHORT and "\n" not in short and not _is_prose(short):
        formula = SEGMENT.search(short)
        if formula is None or formula.span() == (0, len(short)):
            return _checked(short, "no answer in the response")
    if (last := _last(SEGMENT, response)) is not None:
        if concluded := _concluded(response[last.end() :]):
            return concluded
        return _checked(last[0] + _percent_behind(response, last.end()), "the last formula is empty")
    last = _last(NUMBER, response)
    return _checked(last[0] if last else "", "no answer in the response")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _of_sentence(rest: str) -> Found | None:
    """What the first sentence of `rest` states: the formula that it begins with, else what follows "is", else all of it."""
    end = SENTENCE_END.search(rest)
    sentence = (rest[: end.start()] if end else rest).strip(" *_`")
    if (formula := SEGMENT.match(rest)) and not ANOTHER.match(sentence, formula.end()):
        return _checked(formula[0] + _percent_behind(rest, formula.end()), "the stated answer is empty")
    if (number := NUMBER.match(sentence)) and REASON.match(sentence, number.end()):
        return Found(number[0])
    subject, verb, predicate = sentence.partition(" is ")
    if verb and not any(character.isdigit() for character in subject):
        return _of_sentence(predicate) or Found(predicate)
    if _is_prose(sentence):
        single = _only_number(sentence)
        return Found(single) if single else _checked(sentence, "the stated answer is empty")
    return Found(sentence) if sentence else None


def _concluded(prose: str) -> Found | None:
    """The number in "Therefore, there are 12 ways.": the only one in the last conclusion, with no number after its sentence."""
    anchor = _last(CONCLUSION, prose)
    if anchor is None:
        return None
    end = SENTENCE_END.search(prose, anchor.end())
    sentence, behind = (prose[anchor.end() : end.start()], prose[end.start() :]) if end else (prose[anchor.end() :], "")
    if behind.startswith("?") or NUMBER.search(behind) or len(sentence) > LONGEST_ANSWER or NO_CLAIM.search(sentence):
        return None
    number = _only_number(sentence) if CLAIM.search(sentence) else None
    return Found(number) if number else None


def _only_number(sentence: str) -> str | None:
    """The number with the unit behind it. None if there are several, or if words or signs make another number of it."""
    numbers = list(NUMBER.finditer(sentence))
    if len(numbers) != 1 or NOT_THE_NUMBER.search(sentence) or NUMBER_GOES_ON.match(sentence, numbers[0].end()):
        return None
    unit = UNIT.match(sentence, numbers[0].end())
    if unit is None or unit[2] == "in":  # 12 in total
        return numbers[0][0]
    if unit[2] in CANONICAL or unit[2].lower() in CANONICAL:
        return rf"{numbers[0][0]}\text{{ {''.join(filter(None, unit.groups()))}}}"
    is_part = unit[2] in PARTS or unit.start(2) == numbers[0].end()
    return None if is_part else numbers[0][0]


def _is_prose(text: str) -> bool:
    return len(WORD.findall(text)) > 1


def _percent_behind(text: str, start: int) -> str:
    return "\\%" if re.match(r"\s*(?:\\?%|percent\b)", text[start : start + 20]) else ""


def _checked(text: str, empty: str) -> Found:
    text = text.strip()
    if not text:
        return Found(None, empty)
    if len(text) > LONGEST_ANSWER:
        return Found(None, f"an answer of {len(text)} characters is too long to be read")
    return Found(text)
