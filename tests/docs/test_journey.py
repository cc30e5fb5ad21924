"""A group's journey, as docs/architecture.md tells it, is that of the code: what it names exists, and its rows connect."""

import ast
import itertools
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.source_pages import Definition, definitions

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
ROOMS = ("services", "learner", "rollout", "verifier")
NOT_OURS = {"Tensor"}
"""Records of the table that are a library's."""


class Hop(NamedTuple):
    """One row of the table."""

    number: str
    file: str
    function: str
    record_in: str
    record_out: str
    sentence: str


@cache
def hops() -> tuple[Hop, ...]:
    section = PAGE.read_text(encoding="utf-8").split("## A group's journey")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    return tuple(
        Hop._make([*(re.sub(r"\[(.*)\]\(.*\)", r"\1", cell).strip("`") for cell in row[:5]), row[5]]) for row in rows
    )


@cache
def everything() -> frozenset[str]:
    """The name of every function and class of the product."""
    return frozenset(name for room in ROOMS for path in (ROOT / room).rglob("*.py") for name in defined(path))


@cache
def defined(path: Path) -> dict[str, Definition]:
    return definitions(path.read_text(encoding="utf-8"))


def test_the_table_has_a_row_for_each_hop() -> None:
    assert [hop.number for hop in hops()] == [str(number) for number in range(1, len(hops()) + 1)]
    assert 12 <= len(hops()) <= 14


@pytest.mark.parametrize("hop", hops(), ids=lambda hop: hop.number)
def test_a_row_names_a_function_of_its_file(hop: Hop) -> None:
    assert (ROOT / hop.file).is_file(), hop.file
    named = defined(ROOT / hop.file).get(hop.function)
    assert named, f"{hop.file} has no {hop.function}"
    assert isinstance(named.node, ast.FunctionDef | ast.AsyncFunctionDef), f"{hop.function} is not a function"


@pytest.mark.parametrize("hop", hops(), ids=lambda hop: hop.number)
def test_a_row_is_one_link_to_its_file(hop: Hop) -> None:
    assert f"[`{hop.function}`](../{hop.file})" in PAGE.read_text(encoding="utf-8")


def test_the_records_of_the_table_exist() -> None:
    records = {record for hop in hops() for record in (hop.record_in, hop.record_out)}
    assert records <= everything() | NOT_OURS, f"no class is called {records - everything() - NOT_OURS}"


def test_each_row_takes_the_record_that_the_row_above_made() -> None:
    for above, below in itertools.pairwise(hops()):
        assert below.record_in == above.record_out, f"between rows {above.number} and {below.number}"


@pytest.mark.parametrize("hop", hops(), ids=lambda hop: hop.number)
def test_what_a_sentence_names_exists(hop: Hop) -> None:
    for name in re.findall(r"`([A-Z]\w+\.\w+)`", hop.sentence):
        assert name in everything(), f"row {hop.number} names {name}, which does not exist"
    for file in re.findall(r"`([\w/]+\.py)`", hop.sentence):
        assert (ROOT / file).is_file(), f"row {hop.number} names {file}, which does not exist"
