"""Programming datasets as tasks of grader `code`: what is called or fed to a program, and what must come back, as JSON.

Tests written in free Python, such as HumanEval's, cannot be used: running them would let the graded program and its judge
share a process. Tests are parsed, never executed; a row whose tests cannot be parsed raises UnreadableRow.
"""

import ast
import json
from typing import Any

from services.datasets.row_values import cell, first_column, sendable, shown, text_cell, why_not_json
from services.datasets.sources import Row, UnreadableRow
from services.datasets.task import Task

WHERE = (
    "Put all of it, with its imports, into one block that begins with ```python and ends with ```. "
    "The last such block counts."
)
"""Ends every prompt: where grader `code` looks for the program (verifier/graders/code/program.py)."""


def apps(row: Row) -> Task:
    """APPS and TACO: `question`, `input_output` with inputs, outputs and perhaps fn_name, perhaps `starter_code`."""
    tests = _input_output(row)
    inputs, outputs, name = tests.get("inputs"), tests.get("outputs"), tests.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or len(inputs) != len(outputs):
        raise UnreadableRow(f"{row.place}: column input_output needs as many inputs as outputs, at least one")
    question = text_cell(row, "question").rstrip()
    if name is None:
        pairs = zip(map(_lines, inputs), map(_lines, outputs), strict=True)
        cases = [{"stdin": given, "stdout": printed} for given, printed in pairs]
        if any(None in case.values() for case in cases):
            raise UnreadableRow(
                f"{row.place}: column input_output has inputs or outputs that are not text, and no fn_name"
            )
        ask = "Write a Python program that reads from standard input and writes to standard output."
        sendable(row, "input_output", cases)
        return Task(f"{question}\n\n{ask} {WHERE}", {"kind": "stdio", "tests": cases})
    if not isinstance(name, str) or not name.isidentifier() or not all(isinstance(given, list) for given in inputs):
        raise UnreadableRow(
            f"{row.place}: fn_name in column input_output must be a name, and each of inputs its arguments"
        )
    if _has_number_names(inputs):
        raise UnreadableRow(
            f"{row.place}: arguments of {name} have objects with numbers as names, which JSON has turned into text"
        )
    # Some sources wrap each result in a list; a row in which every output is such a list is taken to be from one of them.
    if all(isinstance(output, list) and len(output) == 1 for output in outputs):
        outputs = [output[0] for output in outputs]
    reference = _function(
        row, name, [{"args": args, "expected": out} for args, out in zip(inputs, outputs, strict=True)]
    )
    starter = row.fields.get("starter_code")
    ask = f"Write a Python function `{name}`, outside of any class."
    if isinstance(starter, str) and starter.strip():
        ask += f" Its parameters are those of\n```python\n{starter.strip()}\n```"
    return Task(f"{question}\n\n{ask}\n{WHERE}", reference)


def mbpp(row: Row) -> Task:
    """MBPP: `text` or, in the sanitized set, `prompt`; `test_list` of `assert f(1, [2]) == 3`."""
    tests = cell(row, "test_list", list, "a list of texts such as `assert f(1) == 2`")
    calls = [_call(row, test) for test in tests]
    if not calls or len({name for name, _, _ in calls}) > 1:
        raise UnreadableRow(f"{row.place}: column test_list must have tests, all of one function")
    name, example, _ = calls[0]
    reference = _function(row, name, [case for _, _, case in calls])
    task = text_cell(row, first_column(row, "text", "prompt")).rstrip()
    return Task(
        f"{task}\n\nWrite a Python function `{name}`, which is called like this: `{example}`. {WHERE}", reference
    )


def _function(row: Row, name: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    if why := why_not_json(cases, "tests"):
        raise UnreadableRow(f"{row.place}: a test of {name} is not JSON: {why}")
    return {"kind": "function", "entry_point": name, "tests": cases}


def _input_output(row: Row) -> dict[str, Any]:
    """The column `input_output`: a JSON object, which the published files hold as text."""
    value = cell(
        row, "input_output", (str, dict), 'the JSON text of an object such as {"inputs": ["1"], "outputs": ["2"]}'
    )
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as fault:
            raise UnreadableRow(f"{row.place}: column input_output is not JSON: {fault}") from None
    if not isinstance(value, dict):
        raise UnreadableRow(f"{row.place}: column input_output must be an object, not {shown(value)}")
    return value


def _lines(text: Any) -> str | None:
    """A text, given as one or, in some sources, as a list of lines; None when it is neither."""
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        return "\n".join(text)
    return text if isinstance(text, str) else None


def _has_number_names(value: Any) -> bool:
    """Whether an argument was written as {1: 2} in Python: JSON makes {"1": 2} of it, which is another argument."""
    if isinstance(value, dict):
        return any(name.lstrip("-").isdigit() for name in value) or any(map(_has_number_names, value.values()))
    return isinstance(value, list) and any(map(_has_number_names, value))


def _call(row: Row, test: Any) -> tuple[str, str, dict[str, Any]]:
    """(function, call as it is written, test) of a line such as `assert f(1, [2]) == 3`. Raises UnreadableRow.

    Arguments must survive JSON unchanged: a tuple would arrive as a list, and a program that prints it or uses it as a key
    would behave differently.
    """
    why = None
    try:
        match ast.parse(test.strip()).body:
            case [ast.Assert(ast.Compare(ast.Call(ast.Name(name), args, keywords) as call, [ast.Eq()], [expected]))]:
                case = {
                    "args": [ast.literal_eval(arg) for arg in args],
                    "expected": _result(ast.literal_eval(expected)),
                }
                if keywords:
                    case["kwargs"] = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
                why = why_not_json(case, name)  # f(**{}) is not JSON: the name of its keyword is null
                if why is None:
                    return name, ast.unparse(call), case
    except (ValueError, TypeError, SyntaxError, AttributeError, RecursionError, MemoryError):
        pass  # whichever way Python cannot read it, the row is refused below, with its text
    raise UnreadableRow(
        f"{row.place}: column test_list has {shown(test)}, which is not like `assert f(1, [2]) == 3` with JSON values"
        + (f": {why}" if why else "")
    )


def _result(value: Any) -> Any:
    """A result in the form in which grader `code` compares: tuples as lists, and keys as JSON writes them."""
    if isinstance(value, list | tuple):
        return [_result(inner) for inner in value]
    if isinstance(value, dict):
        whole = all(isinstance(key, str) or type(key) is int for key in value)
        return {str(key): _result(inner) for key, inner in value.items()} if whole else value
    return value
