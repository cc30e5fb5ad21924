from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from verifier.network import pointer

KEYS = st.text(max_size=5)


@given(st.lists(KEYS, min_size=1, max_size=5), st.integers())
def test_what_is_put_at_a_pointer_is_found_there(way: list[str], value: int) -> None:
    place = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in way)
    document: dict[str, Any] = {}
    pointer.put(document, place, value)
    assert pointer.found(document, place) == value


@given(
    st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=5), st.text()
)
def test_a_pointer_into_any_document_finds_a_value_or_nothing(document: Any, tail: str) -> None:
    pointer.found(document, "/" + tail)


def test_pointers_follow_the_examples_of_rfc_6901() -> None:
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, " ": 7}
    expected = {
        "": document,
        "/foo": ["bar", "baz"],
        "/foo/0": "bar",
        "/": 0,
        "/a~1b": 1,
        "/c%d": 2,
        "/m~0n": 8,
        "/ ": 7,
    }
    assert {place: pointer.found(document, place) for place in expected} == expected
    for place in ("/foo/2", "/foo/-1", "/foo/x", "/none", "/foo/0/x", "/foo/²"):
        assert pointer.found(document, place) is pointer.MISSING
