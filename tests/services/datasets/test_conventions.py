import json
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config.prompts import ColumnMap, ConventionName, PromptsConfig
from services.datasets.conventions import CONVENTIONS, convention, last_boxed
from services.datasets.programs import WHERE
from services.datasets.sources import Row, UnreadableRow
from services.datasets.task import Task
from services.graders import graders
from verifier.grader import build_grader, load_grader

PAGE = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
TOML = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


AIME_70 = (
    r"70^\circ", r"70^{\circ}", "70°", r"70\degree", "70 degrees", r"70\text{ degrees}", "70.0", "70.", "070", "$70$",
    "$70^\\circ$", r"\boxed{70}", r"$\boxed{070}$", r"\boxed{70^\circ}", " 70 ", "$ 70 $",
    r"\(70\)", r"\[70\]", r"\(70^\circ\)", ["70"], [70], ["$070$"],
)  # fmt: skip


def read(name: Any, **fields: Any) -> Task:
    return convention(name).read(Row("rows.jsonl line 7", fields))


def test_every_convention_can_be_named_in_the_settings_and_has_a_grader() -> None:
    assert set(get_args(ConventionName)) == set(CONVENTIONS)
    assert {one.grader for one in CONVENTIONS.values()} <= graders().keys()
    assert convention(ColumnMap(prompt="q", reference="a")).grader == "math"


def test_the_page_on_datasets_shows_every_convention_with_settings_that_load() -> None:
    shown = [PromptsConfig.model_validate(tomllib.loads(block)["prompts"]) for block in TOML]
    assert {one.columns for one in shown if isinstance(one.columns, str)} == set(CONVENTIONS)
    assert any(isinstance(one.columns, ColumnMap) for one in shown)
    assert {one.grader for one in shown} - {None} <= graders().keys()
    for name, one in CONVENTIONS.items():
        (line,) = re.findall(rf"^\| `{name}` \|.*$", PAGE, flags=re.MULTILINE)
        assert line.endswith(f"`{one.grader}` |")


@pytest.mark.parametrize("block", TOML)
def test_the_options_on_the_page_are_those_of_its_graders(block: str) -> None:
    settings = PromptsConfig.model_validate(tomllib.loads(block)["prompts"])
    grader = settings.grader or convention(settings.columns).grader
    build_grader(load_grader(graders()[grader]), settings.options)


def test_rows_of_json_on_the_page_can_be_read() -> None:
    for block in re.findall(r"^```json\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        assert read("plain", **json.loads(block)).grader in graders()


@pytest.mark.parametrize(
    ("name", "fields", "task"),
    [
        ("plain", {"prompt": "1+1?", "reference": 2}, Task("1+1?", 2)),
        (
            "plain",
            {"prompt": "1+1?", "reference": 2, "grader": "exact", "options": {"strip": True, "pattern": None}},
            Task("1+1?", 2, "exact", {"strip": True}),
        ),
        ("gsm8k", {"question": "How many?", "answer": "<<2*600=1200>>\n#### 1,200"}, Task("How many?", "1200")),
        (
            "dapo-math-17k",
            {"prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "34", "style": "rule"}},
            Task([{"role": "user", "content": "?"}], "34"),
        ),
        ("math", {"problem": "?", "solution": r"Thus $\boxed{\frac{1}{2}}$."}, Task("?", r"\frac{1}{2}")),
        ("math", {"problem": "?", "solution": r"\boxed{1}", "answer": r"\text{east}"}, Task("?", r"\text{east}")),
        ("math", {"problem": "?", "solution": r"\boxed{1}", "answer": ""}, Task("?", "1")),
        ("aime", {"problem": "?", "answer": "033"}, Task("?", "33")),
        ("aime", {"Problem": "?", "Answer": 0}, Task("?", "0")),
        ("aime", {"question": "?", "answer": 540.0}, Task("?", "540")),
        ("aime", {"question": "?", "answer": Decimal("540.0")}, Task("?", "540")),
        *(("aime", {"question": "?", "answer": answer}, Task("?", "70")) for answer in AIME_70),
        ("math", {"problem": "?", "solution": r"First \boxed{8}", "answer": 7}, Task("?", "7")),
        ("math", {"problem": "?", "answer": 27.0}, Task("?", "27")),
        ("math", {"problem": "?", "answer": 0.5}, Task("?", "0.5")),
        ("math", {"problem": "?", "answer": 1e-7}, Task("?", "0.0000001")),
        ("math", {"problem": "?", "answer": -3}, Task("?", "-3")),
        ("math", {"problem": "?", "answer": 10**30}, Task("?", str(10**30))),
        ("math", {"problem": "?", "answer": Decimal("1.50")}, Task("?", "1.50")),
        ("math", {"problem": "?", "solution": r"\boxed{1}", "answer": None}, Task("?", "1")),
        ("math", {"problem": "?", "solution": r"\boxed{1}", "answer": float("nan")}, Task("?", "1")),
    ],
)
def test_a_row_is_read_as_its_convention_says(name: ConventionName, fields: dict[str, Any], task: Task) -> None:
    assert read(name, **fields) == task


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        (r"\boxed{7}", "7"),
        (r"first \boxed{1}, then \boxed{ 2 }", "2"),
        (r"\boxed{\frac{\sqrt{2}}{3}} and more {braces}", r"\frac{\sqrt{2}}{3}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"$\boxed 7$.", "7"),
        (r"\fbox{x}", "x"),
        (r"\boxed {7}", "7"),
        (r"\boxed{1} and \boxed{2", None),
        (r"\boxed{}", None),
        (r"\boxedx{1}", None),
        ("no box", None),
    ],
)
def test_the_last_box_holds_the_answer_or_nothing_does(text: str, boxed: str | None) -> None:
    assert last_boxed(text) == boxed


@given(
    st.text(alphabet=r"ab \$"),
    st.recursive(st.sampled_from(["1", "x", r"\{"]), lambda inner: inner.map("{{{}}}".format)),
)
def test_whatever_is_boxed_comes_out_of_the_box(before: str, answer: str) -> None:
    assert last_boxed(rf"{before} \boxed{{wrong}} \boxed{{{answer}}}") == answer


QUESTION = {"question": "?"}


def io(**tests: Any) -> str:
    return json.dumps(tests)


def test_a_program_that_reads_and_prints_is_tested_by_what_it_prints() -> None:
    task = read("apps", question="Add.\n", input_output=io(inputs=["1 2\n", ["3", "4"]], outputs=["3\n", ["7", ""]]))
    assert task.prompt == (
        f"Add.\n\nWrite a Python program that reads from standard input and writes to standard output. {WHERE}"
    )
    assert task.reference == {
        "kind": "stdio",
        "tests": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "3\n4", "stdout": "7\n"}],
    }


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [([3, [1]], [3, [1]]), ([[3], [1]], [3, 1]), ([[3], [1, 2]], [[3], [1, 2]]), ([[[3]], [[1]]], [[3], [1]])],
)
def test_a_function_is_called_and_its_results_may_each_be_in_a_list(outputs: list[Any], expected: list[Any]) -> None:
    tests = io(fn_name="add", inputs=[[1, 2], [[0], 1]], outputs=outputs)
    task = read("apps", question="Add.", input_output=tests, starter_code="class Solution:\n    def add(self, a, b):\n")
    assert task.reference == {
        "kind": "function",
        "entry_point": "add",
        "tests": [{"args": [1, 2], "expected": expected[0]}, {"args": [[0], 1], "expected": expected[1]}],
    }
    assert task.prompt == (
        "Add.\n\nWrite a Python function `add`, outside of any class. Its parameters are those of\n"
        f"```python\nclass Solution:\n    def add(self, a, b):\n```\n{WHERE}"
    )


def test_assertions_become_calls_with_what_they_expect() -> None:
    tests = ["assert top([3, 1], k=1) == [3]", " assert top([2], k=-1)==('a', {1: (2,)}) ", "assert (top('x') == None)"]
    task = read("mbpp", text="Find the largest.", test_list=tests)
    assert task.reference == {
        "kind": "function",
        "entry_point": "top",
        "tests": [
            {"args": [[3, 1]], "kwargs": {"k": 1}, "expected": [3]},
            {"args": [[2]], "kwargs": {"k": -1}, "expected": ["a", {"1": [2]}]},
            {"args": ["x"], "expected": None},
        ],
    }
    assert task.prompt == (
        f"Find the largest.\n\nWrite a Python function `top`, which is called like this: `top([3, 1], k=1)`. {WHERE}"
    )
    assert read("mbpp", prompt="Find it.", test_list=["assert f() == 1"]).prompt.startswith("Find it.")  # type: ignore[union-attr]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=3), VALUES)
def test_values_go_through_an_assertion_unchanged(args: list[Any], expected: Any) -> None:
    task = read("mbpp", text="?", test_list=[f"assert f({', '.join(map(repr, args))}) == {expected!r}"])
    assert task.reference["tests"] == [{"args": args, "expected": expected}]


def test_what_a_test_says_is_never_executed(capsys: pytest.CaptureFixture[str]) -> None:
    for test in (
        "assert f(print('ran')) == 1",
        "print('ran')",
        "assert f(1) == print('ran')",
        "assert f(*print('ran')) == 1",
    ):
        with pytest.raises(UnreadableRow):
            read("mbpp", text="?", test_list=[test])
    assert capsys.readouterr().out == ""


def test_columns_of_ifeval_may_be_the_text_of_lists_in_python() -> None:
    """A table in CSV, written by pandas."""
    task = read(
        "ifeval",
        prompt="Write.",
        instruction_id_list="['punctuation:no_comma', 'length_constraints:number_words']",
        kwargs=[None, "{'num_words': 5, 'relation': 'at least', 'keyword': None}"],
    )
    assert task.reference == [
        {"type": "punctuation:no_comma"},
        {"type": "length_constraints:number_words", "num_words": 5, "relation": "at least"},
    ]


def test_rows_of_ifeval_are_lists_of_constraints() -> None:
    union = {"num_words": None, "relation": None}
    task = read(
        "ifeval",
        prompt="Write.",
        instruction_id_list=["punctuation:no_comma", "length_constraints:number_words"],
        kwargs=[union, union | {"num_words": 300, "relation": "at least"}],
    )
    assert task.reference == [
        {"type": "punctuation:no_comma"},
        {"type": "length_constraints:number_words", "num_words": 300, "relation": "at least"},
    ]


FEW = {"num_words": 3, "relation": "at least"}


@pytest.mark.parametrize(
    ("kinds", "parameters"),
    [
        (["length_constraints:number_words"], [json.dumps(FEW)]),
        (["length_constraints:number_words"], json.dumps([FEW])),
        ('["length_constraints:number_words"]', [FEW]),
        ('["length_constraints:number_words"]', json.dumps([json.dumps(FEW)])),
        (["length_constraints:number_words"], [json.dumps(FEW | {"keywords": None})]),
    ],
)
def test_constraints_may_be_json_text(kinds: Any, parameters: Any) -> None:
    task = read("ifeval", prompt="Write.", instruction_id_list=kinds, kwargs=parameters)
    assert task.reference == [{"type": "length_constraints:number_words"} | FEW]


@pytest.mark.parametrize("nothing", ["{}", "null", None, {}])
def test_a_constraint_without_parameters_may_be_written_in_every_way(nothing: Any) -> None:
    task = read("ifeval", prompt="Write.", instruction_id_list=["punctuation:no_comma"], kwargs=[nothing])
    assert task.reference == [{"type": "punctuation:no_comma"}]


def test_of_multi_if_the_first_turn_is_read() -> None:
    task = read(
        "multi-if",
        turn_1_prompt='{"role": "user", "content": "Write."}',
        turn_1_instruction_id_list=["length_constraints:number_words"],
        turn_1_kwargs=[json.dumps(FEW)],
        turn_2_prompt='{"role": "user", "content": "Again."}',
    )
    assert task.prompt == [{"role": "user", "content": "Write."}]
    assert task.reference == [{"type": "length_constraints:number_words"} | FEW]


def test_options_of_a_row_may_be_json_text() -> None:
    columns = ColumnMap(prompt="q", reference="a", options="o")
    assert read(columns, q="?", a="1", o='{"strip": true, "pattern": null}').options == {"strip": True}
    with pytest.raises(UnreadableRow, match="column o must be an object, or its JSON text, not str 'strict'"):
        read(columns, q="?", a="1", o="strict")


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("ifeval", {"prompt": "?", "instruction_id_list": ["a"], "kwargs": ["{"]}, "column kwargs must be a list of objects"),
        ("ifeval", {"prompt": "?", "instruction_id_list": ["a"], "kwargs": ["[1]"]}, "or its JSON text, not list [1]"),
        ("ifeval", {"prompt": "?", "instruction_id_list": ["a"], "kwargs": [3]}, "or its JSON text, not int 3"),
        ("ifeval", {"prompt": "?", "instruction_id_list": "['a'", "kwargs": [{}]}, "column instruction_id_list must be a list"),
        ("aime", {"problem": "?", "answer": ["70", "71"]}, "must be an integer from 000 to 999, not list"),
        ("ifeval", {"prompt": "?", "instruction_id_list": "a", "kwargs": [{}]}, "column instruction_id_list must be a list"),
        ("multi-if", {"turn_1_prompt": "{}"}, "has no column turn_1_instruction_id_list"),
        ("plain", {"prompt": "?"}, "has no column reference; it has prompt. Name the right ones in prompts.columns"),
        ("plain", {"prompt": "?", "reference": True, "grader": None}, "column grader must be the name of a grader, not NoneType"),
        ("gsm8k", {"question": "?", "answer": "It is 42."}, "column answer does not end in a line `#### 42`"),
        ("dapo-math-17k", {"prompt": "?", "reward_model": {}}, "column reward_model has no column ground_truth; it has none"),
        ("math", {"problem": "?", "solution": "It is 42."}, r"column solution has no complete \boxed{}, but ends in 'It is 42.'"),
        ("math", {"problem": "?"}, "has no column solution; it has problem"),
        ("aime", {"problem": "?", "answer": "1000"}, "column answer must be an integer from 000 to 999, not str '1000'"),
        ("aime", {"problem": "?", "answer": -1}, "column answer must be an integer from 000 to 999, not int -1"),
        ("aime", {"problem": "?", "answer": 3.5}, "column answer must be an integer from 000 to 999, not float 3.5"),
        ("aime", {"problem": "?", "answer": True}, "column answer must be an integer from 000 to 999, not bool True"),
        *(
            ("aime", {"problem": "?", "answer": answer}, "column answer must be an integer from 000 to 999")
            for answer in (r"\frac{1}{2}", "1000^\\circ", "27.5", "12 or 13", "", r"\boxed{}", "12%", "x=12", "-5")
        ),
        ("math", {"problem": "?", "solution": r"\boxed{8}", "answer": ["7"]}, "column answer must be text or a number, not list"),
        ("math", {"problem": "?", "solution": r"\boxed{8}", "answer": True}, "column answer must be text or a number, not bool"),
        ("math", {"problem": "?", "solution": r"\boxed{8}", "answer": float("inf")}, "must be text or a number, not float inf"),
        ("apps", {"question": "?", "input_output": ""}, "column input_output is not JSON"),
        ("apps", {"question": "?", "input_output": "[]"}, "column input_output must be an object, not list []"),
        ("apps", QUESTION | {"input_output": io(inputs=[], outputs=[])}, "as many inputs as outputs, at least one"),
        ("apps", QUESTION | {"input_output": io(inputs=["1"], outputs=[])}, "as many inputs as outputs, at least one"),
        ("apps", QUESTION | {"input_output": io(inputs=[[1]], outputs=["1"])}, "that are not text, and no fn_name"),
        ("apps", {"question": " ", "input_output": io(inputs=["1"], outputs=["1"])}, "column question must be text"),
        ("apps", QUESTION | {"input_output": io(fn_name="f", inputs=["1"], outputs=[1])}, "and each of inputs its arguments"),
        ("apps", QUESTION | {"input_output": io(fn_name="f(", inputs=[[1]], outputs=[1])}, "fn_name in column input_output must"),
        ("apps", QUESTION | {"input_output": io(fn_name="f", inputs=[[2**64]], outputs=[1])}, "tests[0].args[0] is int 184467"),
        ("apps", QUESTION | {"input_output": io(fn_name="f", inputs=[[{"1": 2}]], outputs=[1])}, "objects with numbers as name"),
        ("mbpp", {"text": "?", "test_list": []}, "column test_list must have tests, all of one function"),
        ("mbpp", {"text": "?", "test_list": ["assert f(1) == 1", "assert g(1) == 1"]}, "all of one function"),
        ("mbpp", {"text": "?", "test_list": ["assert f((1, 2)) == 1"]}, "has str 'assert f((1, 2)) == 1', which is no"),
        ("mbpp", {"text": "?", "test_list": ["assert f({1: 2}) == 1"]}, "with JSON values"),
        ("mbpp", {"text": "?", "test_list": ["assert f(1) == {1, 2}"]}, "with JSON values"),
        ("mbpp", {"text": "?", "test_list": ["assert f(1) == {(1, 2): 3}"]}, "with JSON values"),
        ("mbpp", {"text": "?", "test_list": ["assert f(1) == 1e999"]}, "with JSON values"),
        ("mbpp", {"text": "?", "test_list": ["assert not f(1)"]}, "which is not like `assert f(1, [2]) == 3`"),
        ("mbpp", {"text": "?", "test_list": ["assert m.f(1) == 1"]}, "which is not like `assert f(1, [2]) == 3`"),
        ("mbpp", {"text": "?", "test_list": ["assert f(1) == 1; import os"]}, "which is not like `assert f(1, [2]) == 3`"),
        ("mbpp", {"text": "?", "test_list": ["assert f(**{'a': 1}) == 1"]}, "which is not like `assert f(1, [2]) == 3`"),
        ("mbpp", {"text": "?", "test_list": ["assert f(" + "(" * 5000 + ") == 1"]}, "which is not like `assert f(1, [2]) == 3`"),
        ("mbpp", {"text": "?", "test_list": [f"assert f({2**64}) == 1"]}, "f.args[0] is int 184467"),
        ("mbpp", {"text": "?", "test_list": [1]}, "column test_list has int 1, which is no"),
        ("ifeval", {"prompt": "?", "instruction_id_list": ["a"], "kwargs": []}, "1 types in instruction_id_list and 0 in kwargs"),
        ("ifeval", {"prompt": "?", "instruction_id_list": [], "kwargs": []}, "0 types in instruction_id_list"),
        (
            "ifeval",
            {"prompt": "?", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "kn"}]},
            "asks for a language (language:response_language), which grader instructions does not judge",
        ),
    ],
)  # fmt: skip
def test_a_row_that_does_not_follow_its_convention_is_named(
    name: ConventionName, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnreadableRow) as fault:
        read(name, **fields)
    assert str(fault.value).startswith("rows.jsonl line 7")
    assert says in str(fault.value)
