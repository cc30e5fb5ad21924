"""Grader `format`: the response has the tags that are asked for, in order and once each, and keeps to limits.

    <think>some thought</think><answer>42</answer>

The reference is ignored and may be null: this grader does not know whether an answer is right. Use it as a gate or a part of
grader `combine`; alone it teaches a model to fill in the form.

A tag counts exactly as it is written, `<think>` and `</think>`, in this case and without spaces or attributes; anything that
only resembles one is text. Each listed tag must be opened once and closed once, so nesting and repetition are incorrect, and
so are tags with nothing but white space between them. Characters are Unicode code points of the response without the white
space around it; words are separated by white space.

Failure modes: the content of the tags is not looked at, and `forbidden` finds exactly what it is given, so other spellings
pass.
"""

import re
from typing import Annotated, Any, ClassVar

import msgspec

from verifier.answer import Tags
from verifier.grader import Grader, Judgment, ScoringFault

TAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
SHOWN_CHARACTERS = 60  # of what should not be there, in the detail
INVISIBLE = re.compile(
    "[\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b-\\u200f\\u2060-\\u206f\\u3164\\ufeff\\uffa0]"
)
"""Invisible characters: a tag that holds only these is empty."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class ResponseFormat(Grader, frozen=True):
    version: ClassVar[str] = "2"

    tags: tuple[str, ...] = ("think", "answer")
    """Names of the tags, in the order in which they must come. Empty: no tags are required."""
    opened_by_prompt: bool = False
    """Whether the prompt ends with the first tag already open, as in some chat templates: the response begins inside it."""
    text_outside: bool = False
    """Whether text before, between and after the tags is allowed."""
    empty_tags: bool = False
    """Whether tags with nothing but white space between them are allowed."""
    min_characters: Count | None = None
    """The fewest characters of the whole response; None: no limit."""
    max_characters: Count | None = None
    """The most characters of the whole response; None: no limit."""
    min_words: Count | None = None
    """The fewest words of the whole response; None: no limit."""
    max_words: Count | None = None
    """The most words of the whole response; None: no limit."""
    min_characters_in: dict[str, Count] = {}
    """Name of a tag -> the fewest characters between its opening and its closing."""
    max_characters_in: dict[str, Count] = {}
    """Name of a tag -> the most characters between its opening and its closing."""
    forbidden: tuple[str, ...] = ()
    """Texts that must not occur in the response, in upper and lower case as written."""
    thought: Tags | None = None
    """What opens and what closes a thought that is not looked at. By default all of the response is, because the thought's
    tags are part of its form."""
    ends_with: str | None = None
    """Text that the response must end with; white space after it is ignored. None: any end."""

    def __post_init__(self) -> None:
        if wrong := [name for name in self.tags if not TAG_NAME.fullmatch(name)]:
            raise ScoringFault(f"option tags: {wrong[0]!r:.80} is not the name of a tag; write think for <think>")
        if len(set(self.tags)) < len(self.tags):
            raise ScoringFault(f"option tags = {list(self.tags)} has a name twice; each tag comes once")
        if unknown := sorted((self.min_characters_in.keys() | self.max_characters_in.keys()) - set(self.tags)):
            raise ScoringFault(
                f"min_characters_in and max_characters_in name {unknown}, not in tags = {list(self.tags)}"
            )
        for low, high, unit in (
            (self.min_characters, self.max_characters, "characters"),
            (self.min_words, self.max_words, "words"),
            *((self.min_characters_in.get(name), self.max_characters_in.get(name), name) for name in self.tags),
        ):
            if low is not None and high is not None and low > high:
                raise ScoringFault(f"options: at least {low} and at most {high} {unit} cannot both hold")
        if self.opened_by_prompt and not self.tags:
            raise ScoringFault("option opened_by_prompt needs tags")
        if "" in self.forbidden or (self.ends_with is not None and not self.ends_with.strip()):
            raise ScoringFault("options forbidden and ends_with: an empty text says nothing")
        limits = self.min_characters, self.max_characters, self.min_words, self.max_words, self.ends_with
        if not self.tags and not self.forbidden and all(limit is None for limit in limits):
            raise ScoringFault("nothing is asked for, so every response would be correct; set tags or a limit")

    def check(self, reference: Any) -> None:
        """Accepts every reference: it is not looked at."""

    def score(self, response: str, reference: Any) -> Judgment:
        text = response.strip()
        fault = self._length(INVISIBLE.sub("", text).strip()) or self._wording(text) or self._tags(text)
        return Judgment(fault is None, fault or "")

    def _length(self, text: str) -> str | None:
        characters = _out_of_bounds(len(text), self.min_characters, self.max_characters, "characters")
        if characters or (self.min_words is None and self.max_words is None):
            return characters
        return _out_of_bounds(len(text.split()), self.min_words, self.max_words, "words")

    def _wording(self, text: str) -> str | None:
        for forbidden in self.forbidden:
            if forbidden in text:
                return f"contains {forbidden[:SHOWN_CHARACTERS]!r}"
        if self.ends_with is not None and not text.endswith(self.ends_with.strip()):
            return f"does not end with {self.ends_with.strip()[:SHOWN_CHARACTERS]!r}"
        return None

    def _tags(self, text: str) -> str | None:
        if self.opened_by_prompt:
            text = f"<{self.tags[0]}>{text}"
        outside, end = [], 0
        for name in self.tags:
            opening, closing = f"<{name}>", f"</{name}>"
            for mark in (opening, closing):
                if (count := text.count(mark)) != 1:
                    return f"{mark} occurs {count} times, not once"
            start = text.index(opening)
            if start < end:
                return f"{opening} comes before the end of the tag before it"
            outside.append(text[end:start])
            inner_start, inner_end = start + len(opening), text.index(closing)
            if inner_end < inner_start:
                return f"{closing} comes before {opening}"
            if fault := self._inside(name, INVISIBLE.sub("", text[inner_start:inner_end]).strip()):
                return fault
            end = inner_end + len(closing)
        outside.append(text[end:])
        stray = "".join(outside).strip()
        if self.tags and stray and not self.text_outside:
            return f"text outside the tags: {stray[:SHOWN_CHARACTERS]!r}"
        return None

    def _inside(self, name: str, inner: str) -> str | None:
        if not inner and not self.empty_tags:
            return f"<{name}> is empty"
        low, high = self.min_characters_in.get(name), self.max_characters_in.get(name)
        return _out_of_bounds(len(inner), low, high, f"characters in <{name}>")


def _out_of_bounds(count: int, low: int | None, high: int | None, unit: str) -> str | None:
    if low is not None and count < low:
        return f"{count} {unit}, fewer than {low}"
    if high is not None and count > high:
        return f"{count} {unit}, more than {high}"
    return None
