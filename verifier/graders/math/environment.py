"""What stands between \\begin and \\end: systems of equations, cases with their conditions, and matrices."""

import re

from verifier.graders.math import matrices
from verifier.graders.math.expression import Unreadable, expression
from verifier.graders.math.forms import Answer, Many, Matrix, Named, TupleOf
from verifier.graders.math.reader import Grammar
from verifier.graders.math.structure import RELATION, bare, name_of

EQUATIONS = (
    "cases",
    "dcases",
    "rcases",
    "aligned",
    "align",
    "alignedat",
    "gathered",
    "gather",
    "split",
    "eqnarray",
    "equation",
)
NAMES = "|".join(map(re.escape, ("array", *EQUATIONS)))
COLUMNS = r"(?:\s*\[[tcb]\])?(?:\s*\{(?:[lcr| \d]|@\{[^{}]*\})*\})?"
ENVIRONMENT = re.compile(
    rf"\\begin\s*\{{((?:[pbBvV]|small)?matrix|{NAMES})\}}{COLUMNS}(.*?)\\end\s*\{{\1\}}", re.DOTALL
)
CONDITION_WORD = re.compile(r"\\text\s*\{\s*,?\s*(?:if|for|when|where)\s*\}|(?<![a-zA-Z\\])(?:if|for|when|where)\b")
DETERMINANTS = frozenset({"vmatrix", "Vmatrix"})


def is_environment(text: str) -> bool:
    return "\\begin" in text


def environment(text: str, grammar: Grammar) -> Answer:
    """Equations, if the first environment is one of theirs or a brace stands before it; else matrices."""
    environments = list(ENVIRONMENT.finditer(text))
    if not environments:
        raise Unreadable("an environment that is not closed")
    before = text[: environments[0].start()].strip()
    rows_are_equations = environments[0][1] == "array" and RELATION.search(environments[0][2]) is not None
    if environments[0][1] in EQUATIONS or rows_are_equations or before.endswith("\\{"):
        behind = text[environments[0].end() :].strip(" .")
        return _equations(before.removesuffix("\\{").rstrip(), environments[0][2], behind, grammar)
    return _matrices(text, environments, before)


def _equations(before: str, body: str, behind: str, grammar: Grammar) -> Answer:
    name = before.removesuffix("=").rstrip()
    if behind or before == name != "":
        raise Unreadable("something stands around the equations")
    items = [_row(row, grammar) for row in _rows(body)]
    listed = items[0] if len(items) == 1 else Many(tuple(items))
    return Named(name_of(name), listed, name, "") if name else listed


def _row(row: str, grammar: Grammar) -> Answer:
    """x &= 1 is an equation, x & x > 0 a value with its condition."""
    value, _, condition = (part.strip() for part in row.partition("&"))
    if not condition or RELATION.match(condition) or RELATION.search(value):
        return grammar.part(row.replace("&", " "))
    condition = CONDITION_WORD.sub("", condition.replace("&", " ")).strip()
    if not condition:  # a column for the word alone, and the word for what is left
        return grammar.part(value)
    return TupleOf((grammar.part(value), grammar.whole(condition)), round=False)


def _matrices(text: str, environments: list[re.Match[str]], before: str) -> Answer:
    ends = [0, *(found.end() for found in environments)]
    starts = [*(found.start() for found in environments), len(text)]
    between = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    if any(found[1] in DETERMINANTS for found in environments) or any("|" in part for part in between):
        raise Unreadable("a determinant is not worked out")
    if any("matrix" not in found[1] and found[1] != "array" for found in environments):
        raise Unreadable("something stands behind the matrix")
    relation = re.fullmatch(r"(.*?)=\s*(.*)", before)
    name, between[0] = (relation[1], relation[2]) if relation else ("", before)
    matrix = Matrix(matrices.worked_out([_cells(found[2]) for found in environments], between))
    return Named(name_of(name), matrix, name, "") if name else matrix


def _rows(body: str) -> list[str]:
    return [row.strip() for row in re.split(r"\\\\", body) if row.strip()]


def _cells(body: str) -> matrices.Rows:
    cells = tuple(tuple(expression(bare(cell)) for cell in row.split("&")) for row in _rows(body))
    if len({len(row) for row in cells}) != 1:
        raise Unreadable("a matrix whose rows differ in length")
    return cells
