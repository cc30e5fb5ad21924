"""The settings of grader `combine` and its questions; tests/verifier/lanes/test_parts.py has its verdicts."""

from typing import Any

import pytest

from verifier.contract import ScoreItem
from verifier.grader import ScoringFault, build_grader
from verifier.graders.combine import Combine, Overlong

MATH: dict[str, Any] = {"grader": "math"}


def test_each_part_is_asked_with_its_own_reference_and_options() -> None:
    parts = [MATH | {"reference": "m", "options": {"tolerance": 0.1}}, {"grader": "exact"}]
    item = ScoreItem("a", "combine", "12", {"m": "12"}, {"parts": parts}, 7)
    first, second = build_grader(Combine, item.options).questions(item)
    assert first == ScoreItem("a/0", "math", "12", "12", {"tolerance": 0.1}, 7)
    assert second == ScoreItem("a/1", "exact", "12", {"m": "12"}, {}, 7)


@pytest.mark.parametrize("reference", ["12", {"n": "12"}, None])
def test_a_reference_without_a_parts_own_is_a_fault(reference: Any) -> None:
    grader = build_grader(Combine, {"parts": [MATH | {"reference": "m"}]})
    with pytest.raises(ScoringFault, match='no member "m" for grader math'):
        grader.check(reference)
    build_grader(Combine, {"parts": [MATH]}).check(reference)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "parts"),
        ({"parts": []}, "parts"),
        ({"parts": [{"grader": ""}]}, "grader"),
        ({"parts": [MATH | {"wieght": 1.0}]}, "wieght"),
        ({"parts": [{"grader": "combine"}]}, "combine within combine"),
        ({"parts": [MATH], "overlong": {"max_tokens": 3, "buffer_tokens": 4}}, "is above max_tokens"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ScoringFault, match=says):
        build_grader(Combine, options)


def test_the_punishment_grows_linearly_over_the_buffer() -> None:
    shaping = Overlong(max_tokens=10, buffer_tokens=4, penalty=2.0)
    assert [shaping.reward(tokens) for tokens in (0, 6, 7, 8, 10, 99)] == [0, 0, -0.5, -1.0, -2.0, -2.0]
