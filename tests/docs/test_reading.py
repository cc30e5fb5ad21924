"""What docs/architecture.md asks a newcomer to read is as short as it says, counted in lines of the definitions that it links."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.test_journey import PAGE, ROOMS, ROOT, defined, hops

LINK = re.compile(r"\[`?([^\]`]*)`?\]\(([^)#]*)(?:#([^)]*))?\)")


class Task(NamedTuple):
    """One row of the table of what there is to read."""

    name: str
    read: str
    bound: int


@cache
def tasks() -> tuple[Task, ...]:
    rows = re.findall(
        r"^\| (.*) \| (.*) \| ([\d,]+) \| .*\|$", part(PAGE, "how-much-there-is-to-read"), flags=re.MULTILINE
    )
    return tuple(Task(name, read, int(bound.replace(",", ""))) for name, read, bound in rows)


def part(page: Path, anchor: str) -> str:
    """A page's section of the second level, with its heading."""
    for section in re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading = section.splitlines()[0]
        if re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.removeprefix("## ")).lower()) == anchor:
            return section
    raise AssertionError(f"{page.name} has no section {anchor}")


Lines = set[tuple[Path, int]]


def named(file: Path, name: str) -> Lines:
    """The lines of a definition, or of the whole file when the name is the file's."""
    if name == file.name:
        return {(file, line) for line in range(1, len(file.read_text(encoding="utf-8").splitlines()) + 1)}
    return {(file, line) for line in defined(file)[name].lines}


def linked(text: str) -> Lines:
    """The lines behind the links of a piece of the page. A link to a place on this page stands for what that place links."""
    lines: Lines = set()
    for name, target, anchor in LINK.findall(text):
        file = (PAGE.parent / target).resolve() if target else PAGE
        if file.suffix == ".py":
            lines |= named(file, name)
        elif file == PAGE:
            lines |= journey()
        else:
            lines |= {(file, line) for line in range(len(part(file, anchor).splitlines()))}
    return lines


def journey() -> Lines:
    """Its functions, those that they call in their own files, the functions that the sentences link, and the records."""
    lines: Lines = set()
    places = {name: path for room in ROOMS for path in (ROOT / room).rglob("*.py") for name in defined(path)}
    for hop in hops():
        for name in called(ROOT / hop.file, hop.function):
            lines |= named(ROOT / hop.file, name)
        lines |= named(places[hop.record_in], hop.record_in) if hop.record_in in places else set()
        lines |= linked(hop.sentence)
    return lines


def called(file: Path, function: str) -> set[str]:
    """The function and the functions of its file that it calls, and so on; those of its class by way of `self`."""
    found: set[str] = set()
    todo = [function]
    while todo:
        name = todo.pop()
        found.add(name)
        owner = name.rpartition(".")[0]
        for node in ast.walk(defined(file)[name].node):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), attr=attribute):
                    other = f"{owner}.{attribute}"
                case ast.Name(id=other):
                    pass
                case _:
                    continue
            definition = defined(file).get(other)
            if (
                other not in found
                and definition
                and isinstance(definition.node, ast.FunctionDef | ast.AsyncFunctionDef)
            ):
                todo.append(other)
    return found


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name.split(":")[0])
def test_a_task_needs_no_more_reading_than_the_page_says(task: Task) -> None:
    lines = linked(task.read)
    assert len(lines) <= task.bound, f"{task.name}: {len(lines)} lines in {len({file for file, _ in lines})} files"


def test_there_is_something_to_read_for_every_task() -> None:
    assert len(tasks()) == 5
    assert all(len(linked(task.read)) > task.bound / 4 for task in tasks())


def test_helpers_of_a_function_count_with_it() -> None:
    assert called(ROOT / "learner/publish/roll_call.py", "RollCall.at_fault") == {
        "RollCall.at_fault",
        "RollCall._hear",
        "RollCall._look_for",
        "RollCall._refusing",
    }


if __name__ == "__main__":
    for each in tasks():
        counted = linked(each.read)
        print(f"{len(counted):5} lines, {len({file for file, _ in counted}):2} files: {each.name}")
