"""Where sentences end, by punctuation and lists of English abbreviations: time linear in the text."""

import re
from collections.abc import Iterator
from functools import lru_cache

_END = re.compile(
    r"(?<![.!?\u2026\u3002\uff01\uff1f])(?:[.!?\u2026]++([\"'\u201d\u2019)\]*_\u00bb]*+)(?=\s|\Z)|[\u3002\uff01\uff1f]++)"
)
_BEFORE_WORD = re.compile(r"[\s(\[\"'\u201c\u2018*_]")
_NEXT = re.compile(r"\s+[\"'\u201c\u2018(\[*_]{0,4}([^\s\"'\u201d.,;:!?)\]*_]*)")
_LIST_MARK = re.compile(r"[\s>*_#-]*(?:\d{1,3}|[A-Za-z]|[ivxIVX]{2,5})\Z")
_SPEECH = re.compile(
    r"\s+(?:[A-Z][\w.'-]*\s+){1,2}(?:said|says|asked|asks|replied|shouted|cried|whispered|answered|exclaimed|added|yelled|muttered)\b"
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


LONGEST = 16
"""Characters before a full stop in which an abbreviation is looked for."""

TITLES = _set(
    "mr mrs ms mx dr prof rev hon gen col maj capt cmdr lt sgt cpl pres gov sen rep fr mme mlle st mt ft messrs vs "
    "v e.g i.e cf approx viz"
)
"""Never the end of a sentence, unless nothing follows."""
BEFORE_NUMBERS = _set(
    "no nos fig figs eq eqs sec secs ch chap art vol vols p pp ref refs tab thm lem jan feb mar apr jun jul aug sep "
    "sept oct nov dec ca c"
)
"""Not the end of a sentence before a number."""
MAY_END = _set(
    "inc ltd co corp llc bros dept est etc al jr sr ph.d a.m p.m u.s u.k u.n e.u d.c b.c a.d b.a m.a m.d b.sc m.sc"
)
"""The end of a sentence before a word that begins one."""
BEGINNERS = _set(
    "the a an he she it they we i you this that these those there here his her its their our your my in on at for "
    "from with by as to if when while after before since because although though but and or so yet then thus hence "
    "however therefore moreover what who why how where which is are was were do does did can could will would "
    "should may let no not yes ok okay good great fine nice well thanks thank please next first second finally "
    "later now today one two some many most all each every both such another other"
)


def sentences(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph, with their punctuation."""
    start = 0
    for end in _END.finditer(paragraph):
        if _is_end(paragraph, start, end):
            yield paragraph[start : end.end()]
            start = end.end()
    yield paragraph[start:]


def _is_end(paragraph: str, start: int, end: re.Match[str]) -> bool:
    following = _NEXT.match(paragraph, end.end())
    word = following[1] if following else ""
    closing = end[1] or ""
    mark = end[0].removesuffix(closing)
    if not word:
        return True
    if closing.strip("*_"):
        # He said "Stop!" and left.
        return not (
            word[0].islower() or (('"' in closing or "\u201d" in closing) and _SPEECH.match(paragraph, end.end()))
        )
    if mark != ".":
        return True
    before = paragraph[max(start, end.start() - LONGEST) : end.start()]
    line = paragraph[max(0, end.start() - LONGEST - 1) : end.start()].rpartition("\n")[2]
    if len(line) <= LONGEST and _LIST_MARK.fullmatch(line):
        return False
    return not _is_abbreviation(_BEFORE_WORD.split(before)[-1], word)


@lru_cache(maxsize=4096)
def _is_abbreviation(last: str, word: str) -> bool:
    """Whether a full stop belongs to the abbreviation before it. last: that word; word: the next one."""
    known = last.lower()
    if known in TITLES or (len(last) == 1 and last.isupper() and last != "I"):
        return True
    if known in BEFORE_NUMBERS and (
        word[0].isdigit() or (word[0].islower() and known not in ("no", "mar", "art", "c"))
    ):
        return True
    if known in MAY_END or re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", last):
        return word[0].islower() or word[0].isdigit() or (word.lower() not in BEGINNERS and known != "etc")
    return False
