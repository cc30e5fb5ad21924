"""The fenced blocks of a text, as a reader sees them rather than as Markdown has it: models put fences in mid-line, before a
closing tag, into list items and quotations, and forget to close them.

A block opens with three or more backticks or tildes at the beginning of a line, perhaps behind a list mark; and with three
or more backticks behind other text, if nothing but a language follows. It ends at as many of the same sign or more: alone on
a line, before a closing tag or a token that ends the text, or at the end of a line of its content. A fence with a language at
the beginning of a line opens a new block where the one before it was never closed. A block that is still open at the end
holds the rest.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

WHITE = " \t\r\u200b\u200c\u200d\u2060\ufeff"
"""White space and what is as invisible as it."""
_TILDES = re.compile(r"[ \t]*(~{3,})(.*)", re.DOTALL)
_LANGUAGE = re.compile(r"[A-Za-z][\w+#.-]{0,30}")
_BEGINNING = re.compile(r"[\s>\u200b-\u200d\u2060\ufeff]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?")
_LEADS_IN = re.compile(r"[\s:>*_).\uff1a\u3002]")
"""What stands before a fence without a language in mid-line."""
_QUOTED = re.compile(r"^[ \t]*>[ \t]?")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,40}>")
_END_OF_TEXT = re.compile(r"<\|[^<>|\n]{1,30}\|>|\[/INST\]")
_ONE_LINE = re.compile(r"(?<!`)```(?:(python3?|py|json)[ \t]+|[ \t]*(?=[{\[]))([^`\n]+)```(?!`)", re.IGNORECASE)


class Block(NamedTuple):
    language: str
    """The first word behind the opening fence, in lower case; empty: none."""
    lines: list[str]
    closed: bool

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def is_blank(self) -> bool:
        return not "".join(self.lines).strip(WHITE)


def fenced_blocks(text: str) -> list[Block]:
    """The blocks in their order, without empty ones if there are others, in time linear in the text. Without any, those that
    begin and end in one line, such as ```json {"a": 1}```."""
    blocks = list(_blocks(text))
    blocks = [block for block in blocks if not block.is_blank] or blocks
    return blocks or [Block((found[1] or "").lower(), [found[2].strip()], True) for found in _ONE_LINE.finditer(text)]


def _blocks(text: str) -> Iterator[Block]:
    lines: list[str] | None = None  # of the open block
    fence, language, quoted = "", "", False
    for line in text.split("\n"):
        marked = "```" in line or "~~~" in line
        if lines is None:
            if marked and (opening := _opening(line)):
                fence, language, quoted = opening
                lines = []
            continue
        inner = _QUOTED.sub("", line) if quoted else line
        if not marked or fence not in inner:
            lines.append(inner)
        elif (last := _last_line(inner, fence)) is not None:
            yield Block(language, [*lines, last] if last.strip(WHITE) else lines, closed=True)
            lines = None
        elif inner.lstrip(WHITE).startswith(fence) and (opening := _opening(line)) and opening[1]:
            yield Block(language, lines, closed=False)
            fence, language, quoted = opening
            lines = []
        else:
            lines.append(inner)
    if lines is not None:
        yield Block(language, lines, closed=False)


def _opening(line: str) -> tuple[str, str, bool] | None:
    """The fence that the line opens a block with, the language, and whether the line is quoted; None: it opens none."""
    if line == "```":
        return line, "", False
    if tildes := _TILDES.match(line):
        return tildes[1], _language(tildes[2]), False
    before, fence, info = _last_backticks(line)
    if len(fence) < 3 or "```" in before:
        return None
    beginning = _BEGINNING.match(before)
    assert beginning is not None
    if beginning.end() < len(before):
        info = info.strip(WHITE)
        if not (_LANGUAGE.fullmatch(info) if info else _LEADS_IN.match(before[-1])):
            return None
    return fence, _language(info), ">" in before and beginning.end() == len(before)


def _last_line(line: str, fence: str) -> str | None:
    """What stands before the fence that ends a block in this line; None: the block goes on."""
    if line == fence:
        return ""
    bare = line.strip(WHITE)
    if bare.startswith(fence):
        rest = bare.lstrip(fence[0]).strip(WHITE + ".,;:)")
        return "" if not rest or _ends_here(rest) else None
    if fence[0] != "`":
        return None
    before, found, behind = _last_backticks(bare)
    if not found.startswith(fence) or before[-1:].isspace() or "```" in before:
        return None
    return before if not behind or _ends_here(behind.strip(WHITE)) else None


def _ends_here(behind: str) -> bool:
    """Whether what stands behind a fence lets it end a block: a tag, or a token that ends the text."""
    return _TAG.match(behind) is not None or _END_OF_TEXT.match(behind) is not None


def _last_backticks(line: str) -> tuple[str, str, str]:
    """What stands before the last run of backticks, the run, and what stands behind it."""
    end = line.rfind("`") + 1
    start = len(line[:end].rstrip("`"))
    return line[:start], line[start:end], line[end:]


def _language(info: str) -> str:
    found = _LANGUAGE.match(info.strip(WHITE + "{.}"))
    return found[0].lower() if found else ""
