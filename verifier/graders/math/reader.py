"""One row of the grammar: what a reader takes, with an example, and why it stands before another that would take it too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from verifier.graders.math.forms import Answer


@dataclass(frozen=True)
class Grammar:
    """What readers read the parts of their text with."""

    whole: Callable[[str], Answer]
    """An answer that may have several parts. Raises Unreadable."""
    part: Callable[[str], Answer]
    """One part of it, without separators outside brackets. Raises Unreadable."""


@dataclass(frozen=True)
class Before:
    """A reader further down that would take the example too, and make something else of it."""

    reader: str
    example: str
    why: str


@dataclass(frozen=True)
class Reader:
    name: str
    example: str
    """In the notation of notation.plain, as are all texts here."""
    takes: Callable[[str], bool]
    """Whether the text has this form. Never raises."""
    read: Callable[[str, Grammar], Answer]
    """Asked for what it takes. Raises Unreadable when it has the form and cannot be read all the same."""
    before: Sequence[Before] = field(default=())


def reader_of(table: Sequence[Reader], text: str) -> Reader:
    """The first that takes the text; the last reader of a table takes everything."""
    return next(reader for reader in table if reader.takes(text))
