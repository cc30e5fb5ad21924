"""A cell is what its column should hold, or an error that says what it holds instead."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.datasets.row_values import (
    LARGEST_WIRE_INTEGER,
    cell,
    first_column,
    prompt_cell,
    reference_cell,
    shown,
    text_cell,
    why_not_json,
)
from services.datasets.sources import Row, UnreadableRow
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from tests.learner.tiny import scored_group


def row(**fields: Any) -> Row:
    return Row("train.jsonl line 7", fields)


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(UnreadableRow, match=r"line 7 has no column prompt; it has question, answer\."):
        cell(row(question="?", answer="!"), "prompt", str, "text")


@pytest.mark.parametrize("value", [1, True, None, ["a"]])
def test_a_cell_of_another_type_is_shown(value: object) -> None:
    with pytest.raises(UnreadableRow, match=f"column prompt must be text, not {type(value).__name__} "):
        cell(row(prompt=value), "prompt", str, "text")


def test_null_may_stand_for_something() -> None:
    assert cell(row(options=None), "options", dict, "an object", empty={}) == {}


def test_the_first_column_that_is_there_is_taken() -> None:
    assert first_column(row(Answer=1), "answer", "Answer") == "Answer"
    assert first_column(row(), "answer", "Answer") == "answer"


def test_a_prompt_is_a_text_or_messages() -> None:
    messages = [{"role": "user", "content": "1+1?", "name": "dropped"}]
    assert prompt_cell(row(prompt="1+1?"), "prompt") == "1+1?"
    assert prompt_cell(row(prompt=messages), "prompt") == [{"role": "user", "content": "1+1?"}]


@pytest.mark.parametrize("value", ["", "  ", [], [{"role": "user"}], ["text"], 7])
def test_other_prompts_are_refused(value: object) -> None:
    with pytest.raises(UnreadableRow, match="must be text or a list of messages with role and content"):
        prompt_cell(row(prompt=value), "prompt")


def test_a_text_of_white_space_is_refused() -> None:
    with pytest.raises(UnreadableRow, match="column question must be text"):
        text_cell(row(question=" \n"), "question")


def test_numbers_that_the_wire_cannot_hold_become_text() -> None:
    assert reference_cell(row(reference=LARGEST_WIRE_INTEGER + 1), "reference") == str(LARGEST_WIRE_INTEGER + 1)
    assert reference_cell(row(reference=Decimal("1.50")), "reference") == "1.50"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "a JSON value other than null"),
        (float("nan"), "reference is float nan, which JSON does not have"),
        ({1: 2}, "a name in reference is int 1, and names are text"),
        (object(), "reference is object <object"),
        ([[], [object()]], r"reference\[1\]\[0\] is object"),
        ({"tests": [{"args": [10**29]}]}, r"reference\.tests\[0\]\.args\[0\] is int 1000.*, an integer beyond 64 bits"),
        ({"tests": [{"args": [10**5000]}]}, r"args\[0\] is int of too many digits.*, an integer beyond 64 bits"),
        (["a", "\ud83d"], r"reference\[1\] is str .*half a surrogate pair"),
        ({"\ud83d": 1}, "a name in reference is str .*half a surrogate pair"),
        ([Decimal("1.5")], r"reference\[0\] is Decimal"),
    ],
)
def test_a_reference_that_is_not_json_is_refused_with_place_and_cause(value: object, says: str) -> None:
    with pytest.raises(UnreadableRow, match=f"line 7: column reference must be .*{says}"):
        reference_cell(row(reference=value), "reference")


def test_a_value_that_is_nested_beyond_what_can_be_read_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert why_not_json(value, "options") == "options is nested too deeply"
    while value:  # else the interpreter takes it apart by recursion
        value = value.pop()


def test_a_text_that_is_not_unicode_is_refused() -> None:
    for broken in ("\ud83d?", [{"role": "user", "content": "\ud83d?"}]):
        with pytest.raises(UnreadableRow, match=r"line 7: column prompt must be a JSON value: prompt.* surrogate pair"):
            prompt_cell(row(prompt=broken), "prompt")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
        max_leaves=6,
    )
)
def test_json_values_survive_the_wire(value: object) -> None:
    if why_not_json(value, "reference") is None:
        prompt = scored_group(0, rewards=[1.0]).group.prompt
        sent = Prompt(**{name: getattr(prompt, name) for name in Prompt.__struct_fields__} | {"reference": value})
        assert decode(encode(sent), Prompt).reference == value


def test_a_long_value_is_cut_in_messages() -> None:
    assert shown("x" * 100) == f"str '{'x' * 59}..."
