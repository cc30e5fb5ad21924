"""How the rows of well-known datasets become tasks: columns, reference and grader of each convention.

Every convention rewards 1 for a correct response and 0 for an incorrect one. Rewards that a dataset's paper gives beyond
that are options of a grader; docs/datasets.md shows them. A new convention is one function and one line in CONVENTIONS
here, its name in services/config/prompts.py, and a section of that page.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isnan
from typing import Any

from services.config.prompts import ColumnMap, ConventionName
from services.datasets.programs import apps, mbpp
from services.datasets.row_values import (
    as_json,
    cell,
    first_column,
    json_cell,
    prompt_cell,
    reference_cell,
    sendable,
    shown,
    text_cell,
)
from services.datasets.sources import Row, UnreadableRow
from services.datasets.task import Task

AIME_ANSWER = re.compile(
    r"([0-9]{1,3})(?:\.0*)?\s*(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree|\\text\s*\{\s*degrees?\s*\}|degrees?)?\s*\.?"
)
FORMULA_SIGNS = re.compile(r"\\[()\[\]]|\$")
GSM8K_ANSWER = re.compile(r"####\s*(\S.*?)\s*$")
BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
NOT_JUDGED = "language:response_language"


@dataclass(frozen=True, slots=True)
class Convention:
    """How to read one kind of row."""

    read: Callable[[Row], Task]
    """The task of a row. Raises UnreadableRow."""
    grader: str
    """Grader of rows that name none, if the settings name none either."""


def convention(columns: ConventionName | ColumnMap) -> Convention:
    """The convention that `prompts.columns` names, or that of a table of column names."""
    if isinstance(columns, str):
        return CONVENTIONS[columns]
    return Convention(lambda row: _mapped(columns, row), "math")


def plain(row: Row) -> Task:
    """Columns `prompt` and `reference`, and `grader` and `options` where there are any."""
    own = {name: name for name in ("grader", "options") if name in row.fields}
    return _mapped(ColumnMap(prompt="prompt", reference="reference", **own), row)


def gsm8k(row: Row) -> Task:
    """GSM8K: `question`, and `answer`, a solution whose last line is `#### 42`."""
    solution = cell(row, "answer", str, "a solution whose last line is `#### 42`")
    answer = GSM8K_ANSWER.search(solution)
    if answer is None:
        raise UnreadableRow(f"{row.place}: column answer does not end in a line `#### 42`, but in {solution[-40:]!r}")
    return Task(prompt_cell(row, "question"), answer[1].replace(",", ""))


def dapo_math_17k(row: Row) -> Task:
    """DAPO-Math-17k: `prompt` as chat messages, and `reward_model.ground_truth`."""
    reward_model = cell(row, "reward_model", dict, "an object with ground_truth")
    reference = reference_cell(Row(f"{row.place}, column reward_model", reward_model), "ground_truth")
    return Task(prompt_cell(row, "prompt"), reference)


def math(row: Row) -> Task:
    """MATH, whose answer is the last box of its solution, and MATH-500, which also has it in a column, as text or a number."""
    prompt = prompt_cell(row, "problem")
    if answer := _written_answer(row):
        return Task(prompt, answer)
    solution = text_cell(row, "solution", r"a solution with its answer in \boxed{}")
    boxed = last_boxed(solution)
    if boxed is None:
        raise UnreadableRow(rf"{row.place}: column solution has no complete \boxed{{}}, but ends in {solution[-40:]!r}")
    return Task(prompt, boxed)


def aime(row: Row) -> Task:
    """AIME: a problem, and an answer from 000 to 999 as an integer or a text, in a box, signs of a formula or degrees or not,
    or a list of one of these."""
    name = first_column(row, "answer", "Answer")
    answer = cell(row, name, (str, int, float, Decimal, list), "an integer from 000 to 999")
    written = str(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)
    bare = FORMULA_SIGNS.sub("", last_boxed(written) or written).strip()
    found = AIME_ANSWER.fullmatch(bare)
    if found is None:
        raise UnreadableRow(f"{row.place}: column {name} must be an integer from 000 to 999, not {shown(answer)}")
    return Task(prompt_cell(row, first_column(row, "problem", "Problem", "question")), str(int(found[1])))


def ifeval(row: Row) -> Task:
    """IFEval: `prompt`, and the types and parameters of its constraints in `instruction_id_list` and `kwargs`."""
    return Task(prompt_cell(row, "prompt"), _constraints(row, "instruction_id_list", "kwargs"))


def multi_if(row: Row) -> Task:
    """Multi-IF, of which the first turn is read: its columns are IFEval's with `turn_1_` before them, and its prompt is the
    JSON text of a message. What later turns ask for depends on what was answered before."""
    message = as_json(cell(row, "turn_1_prompt", object, ""))
    prompt = Row(row.place, {"turn_1_prompt": [message] if isinstance(message, dict) else message})
    reference = _constraints(row, "turn_1_instruction_id_list", "turn_1_kwargs")
    return Task(prompt_cell(prompt, "turn_1_prompt"), reference)


def _constraints(row: Row, types: str, parameters: str) -> Any:
    """The reference of grader `instructions`, from the columns of the constraints' types and parameters. Either may be JSON
    text, and so may the parameters of one constraint. Raises UnreadableRow."""
    kinds = json_cell(row, types, list, "a list of types such as punctuation:no_comma")
    given = json_cell(row, parameters, list, f"a list of objects, one for each of {types}")
    if not kinds or len(kinds) != len(given):
        raise UnreadableRow(f"{row.place}: {len(kinds)} types in {types} and {len(given)} in {parameters}")
    if NOT_JUDGED in kinds:
        raise UnreadableRow(f"{row.place} asks for a language ({NOT_JUDGED}), which grader instructions does not judge")
    constraints = []
    for kind, one in zip(kinds, given, strict=True):
        element = Row(row.place, {parameters: one})
        own = json_cell(element, parameters, dict, f"a list of objects, one for each of {types}", empty={})
        # Parquet gives every object the union of all parameters, with null where one has none.
        constraints.append({"type": kind} | {name: value for name, value in own.items() if value is not None})
    return reference_cell(Row(row.place, {parameters: constraints}), parameters)


CONVENTIONS: Mapping[ConventionName, Convention] = {
    "plain": Convention(plain, "math"),
    "gsm8k": Convention(gsm8k, "math"),
    "dapo-math-17k": Convention(dapo_math_17k, "math"),
    "math": Convention(math, "math"),
    "aime": Convention(aime, "math"),
    "apps": Convention(apps, "code"),
    "mbpp": Convention(mbpp, "code"),
    "ifeval": Convention(ifeval, "instructions"),
    "multi-if": Convention(multi_if, "instructions"),
}


def last_boxed(text: str) -> str | None:
    r"""The contents of the last \boxed{} or \fbox{}; for `\boxed 7`, what stands before the next dollar sign.

    None when there is no box, or when the last one is empty or not closed.
    """
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    if not rest.lstrip().startswith("{"):
        return rest.partition("$")[0].strip() or None
    start, depth = rest.index("{") + 1, 0
    for brace in BRACE.finditer(rest):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth == 0 and brace[0] == "}":
            return rest[start : brace.start()].strip() or None
    return None


def _written_answer(row: Row) -> str:
    """The answer in column `answer`; empty where the row has none there. Raises UnreadableRow for what is not text or a
    number."""
    answer = row.fields.get("answer")
    if answer is None or (isinstance(answer, float | Decimal) and isnan(answer)):  # how a table may hold an empty cell
        return ""
    answer = cell(row, "answer", (str, int, float, Decimal), "text or a number")
    if isinstance(answer, str):
        return answer.strip()
    number = Decimal(str(answer))
    if not number.is_finite():
        raise UnreadableRow(f"{row.place}: column answer must be text or a number, not {shown(answer)}")
    return str(int(number)) if number == number.to_integral_value() else f"{number:f}"


def _mapped(columns: ColumnMap, row: Row) -> Task:
    grader = None if columns.grader is None else cell(row, columns.grader, str, "the name of a grader")
    own: dict[str, Any] = {}
    if columns.options is not None:
        own = sendable(row, columns.options, json_cell(row, columns.options, dict, "an object", empty={}))
    # Parquet gives every row the union of all option names, with null where a row has none.
    options = {name: value for name, value in own.items() if value is not None}
    return Task(prompt_cell(row, columns.prompt), reference_cell(row, columns.reference), grader, options)
