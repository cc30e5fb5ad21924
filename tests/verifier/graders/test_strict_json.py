import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.graders.strict_json import NotJson, last_fenced_json, read_json, same

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(VALUES)
def test_what_json_writes_is_read_unchanged_and_is_the_same_as_itself(value: object) -> None:
    read = read_json(json.dumps(value))
    assert read == value
    assert same(read, value)


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_not_json(text: str) -> None:
    with contextlib.suppress(NotJson):
        read_json(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("{'a': 1}", "not JSON"),
        ('{"a": 1} ', None),
        ('{"a": 1} and so on', "not JSON: Extra data"),
        ('{"a": 1, "a": 1}', "a name twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "a name twice"),
        ("NaN", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("1e400", "beyond a double's range"),
        ("-1e400", "beyond a double's range"),
        ("9" * 308, None),
        ("9" * 309, "beyond a double's range"),
        ("-" + "9" * 1_000_000, "beyond a double's range"),
        ("0." + "3" * 1_000_000, None),
        ("1e" + "9" * 1_000_000, "beyond a double's range"),
        ("[" * 64 + "]" * 64, None),
        ("[" * 65 + "]" * 65, "nested deeper than 64"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper than 64"),
        ("[" * 1_000_000, "nested too deeply"),
        ('{"a":' * 500_000, "nested too deeply"),
        ('"' + "\\" * 1_000_001 + '"', "not JSON"),
        ('"tab\there"', "not JSON: Invalid control character"),
        ("\ufeff1", "not JSON"),
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(text: str, why: str | None) -> None:
    start = time.thread_time()
    if why is None:
        read_json(text)
    else:
        with pytest.raises(NotJson, match=why):
            read_json(text)
    assert time.thread_time() - start < 2


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("1", "1.0", True),
        ("1", "true", False),
        ("0", "false", False),
        ("[0]", "[false]", False),
        ("null", "false", False),
        ('{"a": 1, "b": [2]}', '{"b": [2.0], "a": 1}', True),
        ("[1, 2]", "[2, 1]", False),
        ("[1, 2]", "[1]", False),
        ('{"a": 1}', '{"a": 1, "b": null}', False),
        ('"1"', "1", False),
        ("9007199254740993", "9007199254740992.0", False),
        ("[]", "{}", False),
    ],
)
def test_values_are_compared_as_json_does(left: str, right: str, equal: bool) -> None:
    assert same(read_json(left), read_json(right)) is equal
    assert same(read_json(right), read_json(left)) is equal


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("no block", None),
        ("```json\n1\n```", "1\n"),
        ("a\n```\n1\n```\nb\n```JSON\n2\n```\nc", "2\n"),
        ("```json\n1\n```\n```python\n2\n```", "1\n"),
        ("```json\n1\n```\n```json\n2", "1\n"),
        ("```json\n1", None),
        ('```json\n"```json"\n```', '"```json"\n'),
        ("   ```json\n  1\n   ```", "  1\n"),
    ],
)
def test_the_last_complete_block_of_json_is_found(text: str, body: str | None) -> None:
    assert last_fenced_json(text) == body


def test_a_flood_of_fences_is_read_once() -> None:
    start_s = time.process_time()
    assert last_fenced_json("```\n" * 300_001) == ""
    assert time.process_time() - start_s < 20  # minutes, if every fence were looked for from the beginning
