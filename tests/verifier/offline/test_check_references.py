import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.verifier.sandbox.machine import sandbox_or_skip

ROOT = Path(__file__).parents[3]
DOUBLE = {"kind": "function", "entry_point": "f", "tests": [{"args": [1], "expected": 2}]}


def faults(*asked: tuple[str, Any, dict[str, Any]], **environment: str) -> list[tuple[str, str]]:
    lines = [
        {"place": f"row {number}", "grader": grader, "reference": reference, "options": options}
        for number, (grader, reference, options) in enumerate(asked, start=1)
    ]
    checked = subprocess.run(
        [sys.executable, "-m", "verifier.offline.check_references"],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    return [(said["place"], said["fault"]) for said in map(json.loads, checked.stdout.splitlines())]


def test_what_can_be_judged_is_not_mentioned() -> None:
    sandbox_or_skip()
    parts = [{"grader": "math", "gate": True}, {"grader": "format"}]
    assert not faults(
        ("exact", "12", {}), ("math", "\\frac12", {}), ("code", DOUBLE, {}), ("combine", "1", {"parts": parts})
    )


@pytest.mark.parametrize(
    ("grader", "reference", "options", "says"),
    [
        ("math", "\\frac{1", {}, "grader math: reference"),
        ("exact", None, {}, "grader exact: reference"),
        ("exact", "1", {"fuzzy": True}, "unknown options fuzzy"),
        ("code", {"kind": "function", "tests": []}, {}, "grader code: "),
        ("combine", "1", {"parts": [{"grader": "maths"}]}, 'there is no grader "maths" for a part'),
        ("combine", "\\frac{1", {"parts": [{"grader": "math"}]}, "grader math: reference"),
        ("combine", "1", {}, "grader combine: "),
    ],
)
def test_what_cannot_be_judged_is_named(grader: str, reference: Any, options: dict[str, Any], says: str) -> None:
    if grader == "code":
        sandbox_or_skip()
    (fault,) = faults(("exact", "fine", {}), (grader, reference, options))
    assert fault[0] == "row 2"
    assert says in fault[1]


def test_a_machine_without_a_sandbox_is_named_with_what_is_missing(tmp_path: Path) -> None:
    (fault,) = faults(("exact", "12", {}), ("code", DOUBLE, {}), PATH=str(tmp_path), RATCHET_SANDBOX_FOUND="")
    assert fault[0] == "row 2"
    assert "grader code cannot be used on this machine: bubblewrap is not installed" in fault[1]
