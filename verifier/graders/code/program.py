"""Where the program is in a response."""

import ast
import re
import textwrap
import warnings

from verifier.graders.fences import Block, fenced_blocks

PYTHON = frozenset({"python", "python3", "py", "py3", "python2", "pypy", "pypy3", "sage", "cython"})
_TAGGED = [
    re.compile(rf"{begin}((?:(?!{begin}).)*?)(?:{end}|\Z)", re.DOTALL | re.IGNORECASE)
    for begin, end in (
        ("<answer>", "</answer>"),
        ("<(?:code|python)>", "</(?:code|python)>"),
        (r"\[PYTHON\]", r"\[/PYTHON\]"),
        (r"\[BEGIN\]", r"\[DONE\]"),
    )
]
"""What programs stand between where there is no fence; the last two are the forms of Code Llama and of MBPP's own prompts."""
MOST_PARSED = 20
"""Unmarked blocks that are parsed, from the last on, to see which is a program."""
LONGEST_PARSED = 200_000
"""Characters of these blocks."""


def program_in(response: str, entry_point: str | None = None) -> str:
    """The program of a response: a block that is marked as Python decides, else one that is not marked and parses as a
    program (sample output does not), else any block but one; of several the last, or for a function the last that defines
    it. Without a block, it is what stands between tags (answer, code, python), or all of the response. White space that all
    lines of a block share is taken off, and so is a byte order mark.

    entry_point: name of the function that is called, or Class.method; None: a whole program.
    """
    blocks = fenced_blocks(response)
    if not blocks:
        for tagged in _TAGGED:
            found = tagged.findall(response)
            response = found[-1] if found else response
        return _clean(textwrap.dedent(response) if response[:1].isspace() else response)
    marked = [block for block in blocks if block.language in PYTHON]
    unmarked = [block for block in blocks if not block.language]
    candidates = marked or _programs(unmarked) or unmarked or blocks
    defines = re.compile(
        rf"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+{re.escape((entry_point or '').split('.')[0])}\b", re.M
    )
    defining = [block for block in candidates if defines.search(block.text)] if entry_point else []
    return _clean(textwrap.dedent((defining or candidates)[-1].text))


def _programs(blocks: list[Block]) -> list[Block]:
    """The last of several blocks that is a program, alone; a single block is not looked at."""
    if len(blocks) == 1:
        return blocks
    parsed = 0
    for block in blocks[: -MOST_PARSED - 1 : -1]:
        parsed += len(block.text)
        if parsed > LONGEST_PARSED:
            return []
        if _is_program(textwrap.dedent(block.text)):
            return [block]
    return []


def _is_program(text: str) -> bool:
    """Whether the text is Python that does something: a number or a word of sample output is an expression as well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings that Python does not know
            statements = ast.parse(_clean(text)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(one, ast.Expr) or isinstance(one.value, ast.Call) for one in statements)


def _clean(program: str) -> str:
    """The program without the invisible signs before it, which Python refuses; a file that begins with them runs."""
    return re.sub(r"\A[\s]*[\ufeff\u200b\u2060][\ufeff\u200b\u2060]*", "", program).replace("\n\ufeff", "\n")
