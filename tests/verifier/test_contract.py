"""The records of POST /v1/score: how requests and answers are read."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.wire.verdict import Score
from verifier.contract import MalformedRequest, ScoreItem, ScoreResult, is_deeper, read_request, read_response

ITEM = {"id": "a", "grader": "exact", "response": "4", "reference": "4"}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@given(st.integers(1, 40), st.integers(0, 40))
def test_depth_is_the_number_of_arrays_and_objects_within_each_other(depth: int, most: int) -> None:
    assert is_deeper(nested(depth), most) == (depth > most)
    assert is_deeper({"a": nested(depth)}, most + 1) == (depth > most)


@pytest.mark.parametrize(
    ("items", "path"),
    [
        ([ITEM | {"response": 4}], "$.items[0].response"),
        ([ITEM, ITEM | {"reference": nested(9)}], "$.items[1].reference"),
        ([ITEM | {"options": {"a": nested(9)}}], "$.items[0].options"),
        ([ITEM | {"model": "x"}], "$.items[0]"),
    ],
)
def test_a_malformed_request_says_where(items: list[dict[str, Any]], path: str) -> None:
    with pytest.raises(MalformedRequest) as fault:
        read_request(json.dumps({"items": items}).encode(), max_depth=8)
    assert fault.value.refusal.path == path
    assert len(read_request(json.dumps({"items": [ITEM]}).encode(), max_depth=8).items) == 1


def test_a_score_crosses_the_border_and_comes_back_the_same() -> None:
    score = Score(verdict="incorrect", reward=0.25, detail="answer '5'", elapsed_s=0.5)
    result = ScoreResult.of(ScoreItem("a", "exact", "5", "4"), score)
    body = json.dumps({"results": [msgspec.to_builtins(result)]}).encode()
    assert read_response(body, ["a"]) == [score]
    assert list(msgspec.to_builtins(result)) == ["id", "verdict", "reward", "detail", "elapsed_s"]


@pytest.mark.parametrize(
    "changes", [{"id": "b"}, {"verdict": "error"}, {"reward": None}, {"verdict": "fine"}, {"reward": "1"}]
)
def test_an_answer_that_breaks_the_contract_is_refused(changes: dict[str, Any]) -> None:
    result = {"id": "a", "verdict": "correct", "reward": 1.0, "detail": "", "elapsed_s": 0.0}
    assert read_response(json.dumps({"results": [result]}).encode(), ["a"])
    with pytest.raises(msgspec.MsgspecError):
        read_response(json.dumps({"results": [result | changes]}).encode(), ["a"])
    with pytest.raises(msgspec.MsgspecError):
        read_response(json.dumps({"results": [result, result]}).encode(), ["a"])
