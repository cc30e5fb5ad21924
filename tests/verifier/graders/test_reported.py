"""Kinds of answers that users reported, with siblings of each: graders `math` and `number` judge every one of them rightly."""

import json
from collections import Counter
from pathlib import Path

import pytest

from verifier.grader import Grader, ScoringFault
from verifier.graders.math.grader import MathAnswer
from verifier.graders.number import NumberAnswer

CASES = Path(__file__).parents[1] / "cases"
ROWS = [json.loads(line) for line in (CASES / "reported.jsonl").read_text(encoding="utf-8").splitlines()]
REFERENCES = (CASES / "references.txt").read_text(encoding="utf-8").splitlines()
GRADERS: dict[str, Grader] = {"math": MathAnswer(), "number": NumberAnswer()}


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['kind']}-{at}" for at, row in enumerate(ROWS)])
def test_a_reported_kind_is_judged_rightly(row: dict[str, str]) -> None:
    grader = GRADERS[row["grader"]]
    if row["verdict"] == "error":
        with pytest.raises(ScoringFault, match="reference"):
            grader.score(row["response"], row["reference"])
        return
    judgment = grader.score(row["response"], row["reference"])
    assert judgment.correct is (row["verdict"] == "correct"), judgment.detail


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_in_a_form_of_the_public_sets_equals_itself(reference: str) -> None:
    MathAnswer().check(reference)


def test_every_kind_has_siblings() -> None:
    assert min(Counter(row["kind"] for row in ROWS).values()) >= 6
