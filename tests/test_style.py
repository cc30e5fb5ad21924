"""Habits of the code that a program can see; docs and messages included where a pattern is plainly wrong."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("services", "learner", "rollout", "verifier", "tests", "benchmarks", "examples")
MODULES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
PRODUCT = [path for path in MODULES if path.relative_to(ROOT).parts[0] in FOLDERS[:4]]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes and functions, and the strings behind fields and constants."""
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_docstring_is_a_sentence_that_stands_alone(path: Path) -> None:
    hanging = [
        f"{path}:{line}: {text[:60]!r}" for line, text in docstrings(tree(path)) if re.match(r"(Of|That) ", text)
    ]
    assert not hanging, "\n".join(hanging)


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_attributes_are_assigned_one_at_a_time(path: Path) -> None:
    """An assignment of several at once can carry neither a type nor a comment."""
    several = [
        f"{path}:{node.lineno}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Tuple) and sum(isinstance(part, ast.Attribute) for part in target.elts) > 1
    ]
    assert not several, "\n".join(several)


STILTED = re.compile(
    r"(?<!there )\bis no (number|file|folder|address|plain|regular|URL|text|run|graders?)\b"
    r"|\b(anew|let pass)\b"
    r"|\bso (many|long) (at most|until)\b"
)


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_english_is_plain(path: Path) -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if STILTED.search(line)
    ]
    assert not found, "\n".join(found)
