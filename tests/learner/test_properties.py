"""docs/objective_properties.md names tests: they exist, every property has one, and each has a bug that it finds."""

import ast
import re
from pathlib import Path

from tests.learner.break_on_purpose import breakages

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "objective_properties.md").read_text(encoding="utf-8")
ROWS = [
    ({int(number) for number in numbers.split(",")}, set(re.findall(r"`([^`]+)`", tests)), broken_by.strip())
    for _, numbers, _, tests, broken_by, _ in (
        line.split("|") for line in PAGE.splitlines() if re.match(r"\| \d", line)
    )
]


def test_every_test_that_is_named_exists() -> None:
    for path, function in sorted({tuple(test.split("::")) for _, tests, _ in ROWS for test in tests}):
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (path, function)


def test_every_property_has_a_test() -> None:
    assert all(tests for _, tests, _ in ROWS)
    assert sorted(number for numbers, _, _ in ROWS for number in numbers) == list(range(1, 61))


def test_every_test_that_is_named_has_a_bug_to_find_for_each_of_its_properties() -> None:
    """Whether it does find it is seen by python -m tests.learner.break_on_purpose."""
    named = {(number, test) for numbers, tests, _ in ROWS for number in numbers for test in tests}
    assert named == {(n, test.split("[")[0]) for b in breakages() for n in b.properties for test in b.tests}


def test_the_page_says_what_is_broken() -> None:
    for numbers, _, broken_by in ROWS:
        assert broken_by == "; ".join(b.bug for b in breakages() if numbers & set(b.properties)), numbers


def test_what_is_to_be_broken_is_where_the_table_says_once() -> None:
    for breakage in breakages():
        assert breakage.broken(ROOT)
