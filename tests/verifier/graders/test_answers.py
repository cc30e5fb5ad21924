"""Verdicts on the kinds of answers that people have reported as judged wrongly: tests/verifier/cases/answers.jsonl, in the form
that `ratchet verify` reads."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from services.graders import OURS
from verifier.grader import Grader, ScoringFault, build_grader, load_grader

FILE = Path(__file__).parents[1] / "cases" / "answers.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
NUMBERS = Counter(case["kind"] for case in CASES)


def verdict(case: dict[str, Any]) -> tuple[str, str]:
    """The verdict, and why."""
    try:
        grader = build_grader(load_grader(OURS[case["grader"]]), case.get("options", {}))
        assert isinstance(grader, Grader)
        judgment = grader.score(case["response"], case["reference"])
    except ScoringFault as fault:
        return "error", str(fault)
    return ("correct" if judgment.correct else "incorrect"), judgment.detail


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda at: f"{CASES[at]['kind']}-line-{at + 1}")
def test_a_reported_kind_of_answer_is_judged_as_a_person_would(number: int) -> None:
    case = CASES[number]
    got, why = verdict(case)
    assert got == case["expected"], f"{why}: {case['response']!r:.200}"


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_kind_has_enough_members_to_be_more_than_an_example(kind: str) -> None:
    assert NUMBERS[kind] >= 8
