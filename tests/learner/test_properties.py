"""docs/objective_properties.md names tests: they exist, and every property has one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "objective_properties.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1:4] for line in PAGE.splitlines() if re.match(r"\| \d", line)]


def test_every_test_that_is_named_exists() -> None:
    named = {tuple(name.split("::")) for _, _, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)}
    for path, function in sorted(named):
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (path, function)


def test_every_property_has_a_test() -> None:
    assert all("::" in tests for _, _, tests in ROWS)
    numbers = [int(n) for row, _, _ in ROWS for n in row.split(",")]
    assert sorted(numbers) == list(range(1, 48))
