"""Tests of programs are read, never run."""

from typing import Any

import pytest

from services.datasets.programs import WHERE, apps, mbpp
from services.datasets.sources import Row, UnreadableRow


def row(**fields: Any) -> Row:
    return Row("train.jsonl line 7", fields)


def test_an_assertion_becomes_a_call_and_its_result() -> None:
    task = mbpp(row(text="Add.", test_list=["assert add(1, b=[2]) == (3, {1: 2})"]))
    case = {"args": [1], "kwargs": {"b": [2]}, "expected": [3, {"1": 2}]}
    assert task.reference == {"kind": "function", "entry_point": "add", "tests": [case]}
    assert task.prompt == f"Add.\n\nWrite a Python function `add`, which is called like this: `add(1, b=[2])`. {WHERE}"


def test_an_assertion_with_a_call_in_it_is_not_run() -> None:
    with pytest.raises(UnreadableRow, match="which is not like"):
        mbpp(row(text="?", test_list=["assert add(exit()) == 1"]))


def test_lines_of_input_are_joined() -> None:
    task = apps(row(question="Echo.", input_output='{"inputs": [["1", "2"]], "outputs": ["1\\n2"]}'))
    assert task.reference == {"kind": "stdio", "tests": [{"stdin": "1\n2", "stdout": "1\n2"}]}


def test_a_function_is_asked_for_by_name_with_its_starter_code() -> None:
    tests = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}
    task = apps(row(question="Add.", input_output=tests, starter_code="def add(a, b):\n"))
    assert task.reference["tests"] == [{"args": [1, 2], "expected": 3}]  # each result was in a list of its own
    assert isinstance(task.prompt, str)
    assert task.prompt.endswith(f"Its parameters are those of\n```python\ndef add(a, b):\n```\n{WHERE}")
