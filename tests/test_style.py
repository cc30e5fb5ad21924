"""Habits of the code that a program can see; docs and messages included where a pattern is plainly wrong."""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("services", "learner", "rollout", "verifier", "tests", "benchmarks", "examples", "deploy", "scripts")


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes and functions, and the strings behind fields and constants."""
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def several_at_once(module: ast.Module) -> Iterator[int]:
    """Lines that assign several attributes together."""
    for node in ast.walk(module):
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Tuple) and sum(isinstance(part, ast.Attribute) for part in target.elts) > 1:
                yield target.lineno


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the rules of one file need of its syntax tree, which is made once and not kept."""

    docstrings: list[tuple[int, str]]
    several_at_once: list[int]
    written_otherwise: list[int]


@cache
def parsed(path: Path) -> Parsed:
    module = ast.parse(path.read_text(encoding="utf-8"))
    return Parsed(list(docstrings(module)), list(several_at_once(module)), list(written_otherwise(module)))


def passed_over(path: Path) -> Iterator[int]:
    """Lines that let an exception pass and do not say why."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, (line, following) in enumerate(itertools.pairwise(lines), start=2):
        if re.match(r"\s*except\b.*:\s*(#.*)?$", line) and re.match(r"\s*pass\s*$", following):
            yield number


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_docstring_is_a_sentence_that_stands_alone(folder: str) -> None:
    hanging = [
        f"{path}:{line}: {text[:60]!r}"
        for path in modules(folder)
        for line, text in parsed(path).docstrings
        if re.match(r"(Of|That) ", text)
    ]
    assert not hanging, "\n".join(hanging)


@pytest.mark.parametrize("folder", FOLDERS)
def test_attributes_are_assigned_one_at_a_time(folder: str) -> None:
    """An assignment of several at once can carry neither a type nor a comment."""
    several = [f"{path}:{line}" for path in modules(folder) for line in parsed(path).several_at_once]
    assert not several, "\n".join(several)


def written_otherwise(module: ast.Module) -> Iterator[int]:
    """Lines that put commas between thousands themselves."""
    for node in ast.walk(module):
        if (
            isinstance(node, ast.FormattedValue)
            and node.format_spec is not None
            and "," in ast.unparse(node.format_spec)
        ):
            yield node.lineno


@pytest.mark.parametrize("folder", ["services", "learner", "rollout", "verifier"])
def test_large_numbers_are_written_in_one_place(folder: str) -> None:
    """services/numbers.py has the way."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules(folder)
        if path != ROOT / "services" / "numbers.py"
        for line in parsed(path).written_otherwise
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_exception_that_is_let_go_has_its_reason(folder: str) -> None:
    silent = [f"{path}:{line}: write behind `pass` why" for path in modules(folder) for line in passed_over(path)]
    assert not silent, "\n".join(silent)


STILTED = re.compile(
    r"(?<!there )\bis no (number|file|folder|address|plain|regular|URL|text|run|graders?)\b"
    r"|\b(an[e]w|let [p]ass)\b"  # in brackets, because this file is looked at too
    r"|\bso (many|long) (at most|until)\b"
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_english_is_plain(folder: str) -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in modules(folder)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if STILTED.search(line)
    ]
    assert not found, "\n".join(found)


def test_what_is_looked_for_is_found(tmp_path: Path) -> None:
    """Every rule finds an offender, in a file that has one of each."""
    path = tmp_path / "offends.py"
    path.write_text(
        'def f(self):\n    """Of them."""\n    self.a, self.b = 1, 2\n    try:\n        f()\n    except OSError:\n        pass\n',
        encoding="utf-8",
    )
    assert [text for _, text in parsed(path).docstrings] == ["Of them."]
    assert parsed(path).several_at_once == [3]
    assert list(passed_over(path)) == [7]
    assert list(written_otherwise(ast.parse('f"{a:,}"\nf"{b:.2f}"\nf"{c:,.{d}f}"'))) == [1, 3]
    assert STILTED.search("it is made an" + "ew")
