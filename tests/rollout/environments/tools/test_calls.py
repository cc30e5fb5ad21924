"""Calls are read as each family of models writes them, and what only looks like one is said to be none."""

import pytest

from rollout.environments.tools.calls import EXAMPLES, FORMATS, Call, Unreadable, read_calls

ADD = Call("add", {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("form", "said", "text", "calls"),
    [
        # Qwen 2.5 and 3, Hermes 2 Pro
        ("hermes", '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>', "", [ADD]),
        (
            "hermes",
            'Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>\n'
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
            "Let me see.\n\n",
            [ADD, Call("now", {})],
        ),
        ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}', "", [ADD]),
        ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}</tool_call>', "", [ADD]),
        # Llama 3.1 and 3.3
        ("llama3_json", '{"name": "add", "parameters": {"a": 1, "b": 2}}', "", [ADD]),
        ("llama3_json", '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}', "", [ADD]),
        (
            "llama3_json",
            '{"name": "add", "arguments": {"a": 1, "b": 2}}; {"name": "now", "parameters": {}}',
            "",
            [ADD, Call("now", {})],
        ),
        # Llama 3.2 and 4
        ("pythonic", "[add(a=1, b=2)]", "", [ADD]),
        ("pythonic", "<|python_start|>[add(a=1, b=2), now()]<|python_end|>", "", [ADD, Call("now", {})]),
        (
            "pythonic",
            '[find(words=["x", "y"], deep={"k": -1.5, "on": True})]',
            "",
            [Call("find", {"words": ["x", "y"], "deep": {"k": -1.5, "on": True}})],
        ),
        # Qwen 3 Coder
        (
            "qwen3_coder",
            "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>",
            "",
            [Call("add", {"a": "1", "b": "2"}, texts=True)],
        ),
        (
            "qwen3_coder",
            "<tool_call>\n<function=python>\n<parameter=code>\nif 1:\n    print(2)\n</parameter>\n</function>\n</tool_call>",
            "",
            [Call("python", {"code": "if 1:\n    print(2)"}, texts=True)],
        ),
    ],
)
def test_calls_of_each_family(form: str, said: str, text: str, calls: list[Call]) -> None:
    read = read_calls(said, form)
    assert (read.text, list(read.calls)) == (text, calls)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "said", ["", "It is 7.", "The list is [1, 2] and {3}.", "a <b> c", "[1, 2, 3]", '{"answer": 7}', "{not json"]
)
def test_an_answer_holds_no_call(form: str, said: str) -> None:
    read = read_calls(said, form)
    assert (read.text, list(read.calls)) == (said, [])


@pytest.mark.parametrize(
    ("form", "said", "why"),
    [
        ("hermes", "<tool_call>add(1, 2)</tool_call>", "not JSON"),
        ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1</tool_call>', "not JSON"),
        ("hermes", '<tool_call>["add"]</tool_call>', "not an object with a name"),
        ("hermes", '<tool_call>{"name": 3}</tool_call>', "not an object with a name"),
        ("hermes", '<tool_call>{"name": "add", "arguments": [1]}</tool_call>', "arguments are not an object"),
        ("hermes", '<tool_call>{"name": "add", "arguments": "one"}</tool_call>', "are a text"),
        ("hermes", "<tool_call>" + "[" * 100_000, "not JSON"),
        ("llama3_json", '{"name": "add", "parameters": {"a": 1', "not JSON"),
        ("llama3_json", "<|python_tag|>add(1)", "no JSON object follows"),
        ("llama3_json", '<|python_tag|>{"a": 1}', "not an object with a name"),
        ("pythonic", "[add(a=1, b=)]", "not a list of calls"),
        ("pythonic", "[add(1)]", "every argument needs its name"),
        ("pythonic", "[add(a=b)]", "not plain values"),
        ("pythonic", "[add(a={1})]", "not plain values"),
        ("pythonic", "[add(a=1), 3]", "something that is not a call"),
        ("pythonic", "[add(a=1)] + [2]", "something follows"),
        ("pythonic", "[add(a=" + "(" * 10_000, "not a list of calls"),
        ("qwen3_coder", '<tool_call>{"name": "add"}</tool_call>', "no <function=NAME>"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(form: str, said: str, why: str) -> None:
    faults = [one for one in read_calls(said, form).calls if isinstance(one, Unreadable)]
    assert [why in fault.why for fault in faults] == [True]


@pytest.mark.parametrize("form", FORMATS)
def test_the_example_that_the_policy_is_shown_is_a_call(form: str) -> None:
    (call,) = read_calls(EXAMPLES[form], form).calls
    assert call == Call("NAME", {"ARGUMENT": "VALUE"}, texts=form == "qwen3_coder")


def test_what_stands_in_a_thought_is_not_called() -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    assert list(read_calls(f"<think>{call}</think>It is 3.", "hermes").calls) == []
    assert list(read_calls(f"<think>{call}", "hermes").calls) == []
    read = read_calls(f"<think>so</think>{call}", "hermes")
    assert (read.text, list(read.calls)) == ("<think>so</think>", [ADD])


def test_texts_get_the_types_of_the_schema() -> None:
    kinds = {"a": "integer", "b": "number", "c": "boolean", "d": "string", "e": "array", "f": "integer"}
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}
    written = {"a": "1", "b": "2.5", "c": "True", "d": "7", "e": "[1]", "f": "one", "g": "8"}
    typed = Call("add", written, texts=True).typed(schema)
    assert typed == {"a": 1, "b": 2.5, "c": True, "d": "7", "e": [1], "f": "one", "g": "8"}
    assert Call("add", {"d": 7}).typed(schema) == {"d": 7}
