"""Which part of a response is its answer: the last complete box, or the last stated answer when there is no box.

The box that closes last decides, even if an unclosed box follows it: an open box states nothing. A box inside the deciding
box belongs to its content. Everything here takes time linear in the length of the response.
"""

import re
from collections import deque
from typing import NamedTuple

from verifier.graders.math.units import CANONICAL, PARTS
from verifier.graders.stated_value import (
    NOISE,
    SENTENCE_END,
    has_rival,
    is_alternative,
    is_denied,
    is_explained,
    is_ruled_out,
    last_statement,
    sentence_of,
    with_signs_of_money,
)

LONGEST_ANSWER = 2_000
"""Characters. A longer one is a text rather than an answer, and could take long to read."""

MOST_LISTED = 20
"""Formulas that may make a list before the end of a response."""

LONGEST_SHORT = 200
"""Characters. A response of at most this many may be nothing but its answer."""

# A brace behind a backslash is printed and groups nothing.
# Data that was escaped once too often has \\boxed.
BRACES = re.compile(r"(?<!\\)\\+boxed\s*\{|\\.|[{}]", re.DOTALL)
SEGMENT = re.compile(
    r"\$\$(?:\\\$|[^$]){1,2000}\$\$"
    r"|(?<!\d)\$(?=\S)(?:\\\$|[^$\n]){1,2000}(?<=\S)\$(?!\d)|(?<!\d)\$(?=\s)(?:\\\$|[^$\n]){1,2000}(?<=\s)\$(?!\d)"
    r"|(?<=\d)\$(?=[\\a-zA-Z])(?:\\\$|[^$\n]){1,2000}(?<=\S)\$(?!\d)"
    r"|\\\((?:[^\\]|\\(?![()])){1,2000}\\\)|\\\[(?:[^\\]|\\(?![\[\]])){1,2000}\\\]"
)
"""A formula. One dollar sign may be money, so that one pair holds white space on both sides or on neither, and no sentence."""
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[-−+]?[$€£¥₹₩]?\d(?:[\d,]*\d)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?:\s?/\s?\d+)?(?:\s*\\?%|\s+percent\b)?"
)
WORD = re.compile(r"(?<![\w\\{])[A-Za-z']{2,}(?![\w{(])|[^\W\d_a-zA-Z\u00c0-\u03ff]")
"""A word, or a letter of a language that writes without spaces."""
TEXT = re.compile(r"\\(?:text|mbox|textbf|mathrm|operatorname)\s*\{[^{}]*\}")
WORDS_AND_NUMBER = re.compile(
    r"[A-Za-z][A-Za-z\s-]*\(\s*([-+]?\d[\d.,]*)\s*\)|(?:therefore|thus|hence|simply|just|exactly|then|now|donc|also|entonces|quindi|então|portanto)\s+([^A-Za-z]+)",
    re.I,
)
LABEL = re.compile(r"[A-Za-z][A-Za-z ]{2,40}:\s+")
"""What may stand before the number in a short response: Profit: 30."""
IN_WORDS = re.compile(r"\s*\(\s*[A-Za-z][A-Za-z\s-]*\)\s*$")
LISTED = re.compile(
    r"[\s*]*(?:,|;|\band\b|\bor\b|\\text\s*\{\s*(?:and|or)\s*\}|\\(?:land|lor)\b)(?:\s*(?:and|or)\b)?[\s*]*",
    re.IGNORECASE,
)
"""What stands between the answers of a list."""
NOT_THE_NUMBER = re.compile(
    r"\b(?:not|never|neither|nor|no|but|except|than|at (?:least|most)|half|third|quarter|twice|double|triple|square|cube|root"
    r"|squared|cubed|minus|negative|plus|about|approximately|roughly|around|nearly|almost|either|or|between|hundred|thousand"
    r"|million|billion|dozen|none|nicht|pas|non|não)\b|\bне\b|不|并非|ない|[万萬亿億]|n't\b|\btimes\s+\$?\d",
    re.IGNORECASE,
)
NUMBER_GOES_ON = re.compile(r"\s*(?:[+/^=>!\\]|<(?!\|)|\*(?!\*)|-(?!\s?[A-Za-z]{2}))|\(|_|[A-Za-z](?![A-Za-z])")
"""What shows, behind a number, that it is only the first part of an expression, such as 5 in 5x."""
UNIT = re.compile(r"[\s*_-]*(cubic\s+)?([A-Za-z]+)((?:\s*/\s*|\s+per\s+)[A-Za-z]+)?([²³])?(?![\w^])")
CONCLUSION = re.compile(r"\b(?:Therefore|Thus|Hence|So|Consequently)\b")
CLAIM = re.compile(r"\b(?:is|are|equals|(?:in|de)creases by)\s+(?:exactly\s+|only\s+)?(?=[-−+$€£\d])")
NO_CLAIM = re.compile(
    r"\b(?:if|when|unless|until|would|could|might|may|maybe|perhaps|possibly|probably|suppos\w+|assum\w+|guess\w*|and|cases?"
    r"|impossible|wrong|incorrect|false|fails?|exclud\w+|contradict\w*)\b",
    re.IGNORECASE,
)


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
    response = with_signs_of_money(NOISE.sub("", response), "$")
    if (start := last_statement(response)) is not None and (found := _of_statement(response[start:][:LONGEST_ANSWER])):
        return found
    short = LABEL.sub("", response.strip(), count=1)
    if len(short) <= LONGEST_SHORT and "\n" not in short and not _is_prose(short):
        formula = _formula(short, 0)
        if formula is None or formula.span() == (0, len(short)) or LISTED.match(short, formula.end()):
            return _checked(short, "no answer in the response")
    if formulas := _last_formulas(response):
        end = formulas[-1].end()
        text = response[formulas[0].start() : end] + _percent_behind(response, end)
        found = _checked(text, "the last formula is empty")
        return _concluded(response[end:]) or _unless_open(found, response, formulas[-1])
    last = _last(NUMBER, response)
    if last is None:
        return Found(None, "no answer in the response")
    return _unless_open(_checked(last[0], ""), response, last)


def _unless_open(found: Found, response: str, last: re.Match[str]) -> Found:
    """What the last formula or number says, unless the words around it deny it or offer another."""
    before = response[max(0, last.start() - LONGEST_SHORT) : last.start()]
    if is_ruled_out(before, response[last.end() : last.end() + LONGEST_SHORT]):
        return Found(None, "the last candidate is denied")
    is_one = found.text is not None and found.text.startswith(last[0])
    return Found(None, "several candidates") if is_one and is_alternative(before) else found


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _formula(text: str, start: int) -> re.Match[str] | None:
    """The first formula from `start` on. What holds a sentence is money: $3 a piece, and then $5."""
    while (found := SEGMENT.search(text, start)) and found[0].startswith("$") and _is_money(found[0]):
        start = found.start() + 1
    return found


def _is_money(formula: str) -> bool:
    return not formula.startswith("$$") and len(WORD.findall(TEXT.sub("", formula))) > 1


def _last_formulas(text: str) -> list[re.Match[str]]:
    """The last formula, with those before it that it makes a list with: $1$, $2$ or $3$."""
    formulas: deque[re.Match[str]] = deque(maxlen=MOST_LISTED)
    start = 0
    while found := _formula(text, start):
        formulas.append(found)
        start = found.end()
    listed: list[re.Match[str]] = []
    for formula in reversed(formulas):
        if listed and not _makes_a_list(text[formula.end() : listed[0].start()], formula[0], listed[0][0]):
            break
        listed.insert(0, formula)
    return listed


def _makes_a_list(between: str, *formulas: str) -> bool:
    """Whether two formulas are answers side by side, rather than two statements: $a = 3$ and $b = 4$."""
    is_or = re.search(r"\bor\b", between) is not None
    return LISTED.fullmatch(between) is not None and (is_or or not any("=" in formula for formula in formulas))


def _of_statement(rest: str) -> Found | None:
    """What a statement says: the formula or the number that it begins with, what follows "is" in it, else all of its first
    sentence. Several candidates are read as the list that they make; a denial is no answer."""
    rest = rest.lstrip()
    sentence = sentence_of(rest).strip(' *_`"')
    formula = _formula(rest[: len(sentence) + LONGEST_SHORT], 0)
    first = formula if formula and formula.start() == 0 else NUMBER.match(rest)
    is_whole = first is formula or (first is not None and not NUMBER_GOES_ON.match(rest, first.end()))
    if first and is_whole and (found := _of_first(rest, sentence, first, is_formula=first is formula)):
        return found
    subject, verb, predicate = sentence.partition(" is ")
    if verb and not any(character.isdigit() for character in subject):
        return _of_statement(predicate + rest[len(sentence) :][:LONGEST_SHORT]) or Found(predicate)
    if _is_prose(sentence):
        single = _only_number(sentence)
        return Found(single) if single else _checked(sentence, "the stated answer is empty")
    return Found(_without_number_in_words(sentence)) if sentence else None


def _of_first(rest: str, sentence: str, first: re.Match[str], *, is_formula: bool) -> Found | None:
    """What a statement says that begins with a formula or a number; None where the words behind the number count."""
    behind = rest[first.end() :]
    if is_denied(behind):
        return Found(None, "the stated answer is denied")
    if has_rival(behind):
        return _listed(rest, sentence)
    if is_formula:
        return _checked(first[0] + _percent_behind(rest, first.end()), "the stated answer is empty")
    return Found(first[0]) if is_explained(behind) else None


def _listed(rest: str, sentence: str) -> Found:
    """Several candidates as one text where they are a list, which a reference may be as well."""
    end, count = 0, 0
    while item := (SEGMENT.match(rest, end) or NUMBER.match(rest, end)):
        end, count = item.end(), count + 1
        if not (joint := LISTED.match(rest, end)):
            break
        end = joint.end()
    if count > 1 and not rest[end : len(sentence)].strip(" .*_`"):
        return Found(rest[:end])
    return Found(None, "several candidates")


def _without_number_in_words(sentence: str) -> str:
    """13 (thirteen) and thirteen (13) are 13."""
    if (number := WORDS_AND_NUMBER.fullmatch(sentence)) and not NOT_THE_NUMBER.search(sentence):
        return number[1] or number[2]
    words = IN_WORDS.search(sentence)
    return sentence[: words.start()] if words and not NOT_THE_NUMBER.search(words[0]) else sentence


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
