"""Where an answer can be taken apart: at signs outside all brackets, and without what merely surrounds it."""

import re
from dataclasses import dataclass

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.notation import depths

SEPARATOR = re.compile(r"\\land(?![a-zA-Z])|\\lor(?![a-zA-Z])|,|;")
RELATION = re.compile(
    r"\\(le|ge|ne|approx|in|equiv|notin|subset|subseteq|Rightarrow|implies|iff|sim|propto)(?![a-zA-Z])|(<|>|=)"
)
# Possessive, or two ways to split a run of commands would multiply.
NAME = re.compile(
    r"(?:\\(?!frac|sqrt|sin|cos|tan|log|ln|text|cdot|pi\b)[a-zA-Z]++\s*+|[a-zA-Z])"
    r"(?:_(?:\{[^{}]*\}|\w)|')*+(?:\s*+\([\w, ]++\))?"
)
"""One variable or function: x, x_1, f(x), \\theta."""
QUANTITY = re.compile(
    r"(?=.*[a-zA-Z])(?:\\text\s*\{[^{}]*\}|\\(?!text\s*\{[^{}]*\})[a-zA-Z]++"
    r"|[a-zA-Z+\-|()\[\]:, {}'/]|\^\{-1\}|\^|_\s*(?:\{[^{}]*\}|\w)|(?<=\()\d++(?=\)))+"
)  # Not possessive as a whole: Python 3.11.2 ends a possessive repeat too early where it holds a look-behind.
"""What may stand before an equals sign as the name of an answer: x, f^{-1}(x), \\angle ABC, \\text{the area}."""


@dataclass(frozen=True)
class Related:
    """A chain of relations, a < b < c: its sides, and the signs between them."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]
    """Each `<`, `>`, `=` or the name of a command, such as `le`."""
    starts: tuple[int, ...]
    """Where each sign begins in the text."""


def top_level(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The matches that begin outside all brackets."""
    depth = depths(text)
    return [found for found in pattern.finditer(text) if depth[found.start()] == 0]


def split(pattern: re.Pattern[str], text: str) -> list[str]:
    """The parts between the matches outside all brackets."""
    parts, start = [], 0
    for found in top_level(pattern, text):
        parts.append(text[start : found.start()])
        start = found.end()
    return [part.strip() for part in [*parts, text[start:]]]


def separators_in(text: str) -> list[str]:
    """The commas, semicolons, `and` and `or` outside all brackets."""
    return [found[0] for found in top_level(SEPARATOR, text)]


def related(text: str) -> Related | None:
    """None without a relation outside all brackets."""
    relations = top_level(RELATION, text)
    if not relations:
        return None
    sides, start = [], 0
    for found in relations:
        sides.append(text[start : found.start()].strip())
        start = found.end()
    sides.append(text[start:].strip())
    signs = tuple(found[1] or found[2] for found in relations)
    return Related(tuple(sides), signs, tuple(found.start() for found in relations))


def bare(text: str) -> str:
    """Without the punctuation behind it and the braces around it. Raises Unreadable for what ends in dots."""
    if re.search(r"\.\s*\.\s*$", text):
        raise Unreadable("the answer goes on")
    text = text.strip().rstrip(".,;:").strip() if not text.endswith("\\") else text.strip()
    while text.startswith("{") and text.endswith("}") and not text.endswith("\\}") and closes_at_end(text):
        text = text[1:-1].strip()
    return text


def closes_at_end(text: str) -> bool:
    """text begins with a bracket, and the one that closes it is the last character."""
    depth = depths(text)
    return 0 not in depth[1:-1] and depth[-1] == 0


def name_of(text: str) -> str:
    """A name without its spaces and braces, so that x_{1} is x_1."""
    return re.sub(r"\s+|[{}]", "", text)
