"""No wait is silent: the code says of each who waits, for what, until when and what shows it, and docs/operating.md lists it.

Each function that blocks on another party ends its docstring with four lines: Waits for, Until, Ended by, Metric. The tables of
docs/operating.md are made from these lines:

    python -m tests.test_waits --write
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/operating.md"
ROOMS = ("learner", "rollout", "verifier", "services")
WORDS = ("Waits for", "Until", "Ended by", "Metric")
BEGIN = "<!-- waits: made by `python -m tests.test_waits --write` from the docstrings of the code -->"
END = "<!-- waits: end -->"
COMMAND = "python -m tests.test_waits --write"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Label = tuple[str, str]
"""Room and what is awaited: the labels of ratchet_waiting and ratchet_wait_seconds_total."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One block of four lines."""

    file: str
    function: str
    waits_for: str
    until: str
    ended_by: str
    metric: str

    @property
    def room(self) -> str:
        return self.file.partition("/")[0]

    @property
    def labels(self) -> set[Label]:
        """The labels that the Metric line names; a label without a room has that of the one before it."""
        found, room = set(), ""
        for match in re.finditer(r'room="([^"]*)"|awaiting="([^"]*)"', self.metric):
            room = match[1] or room
            if match[2]:
                found.add((room, match[2]))
        return found


@dataclass(frozen=True, slots=True)
class Called:
    """A call that blocks, or says until when something else may."""

    file: str
    line: int
    function: str
    """The innermost function around it, dotted from the outermost name in the file."""
    has_block: bool
    """See `documented`."""
    name: str
    label: Label | None
    """What `waiting` is given, if both are literal or constants of the file."""


def paths() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def block(docstring: str) -> dict[str, str] | None:
    """The four lines at the end of a docstring, by their first word; None if it has none. ValueError when they are incomplete."""
    lines = docstring.strip().splitlines()
    starts = [(number, word) for number, line in enumerate(lines) for word in WORDS if line.startswith(f"{word}:")]
    if not starts:
        return None
    if [word for _, word in starts] != list(WORDS):
        raise ValueError(f"the lines are {[word for _, word in starts]}, in place of {list(WORDS)}")
    ends = [number for number, _ in starts[1:]] + [len(lines)]
    texts = {
        word: " ".join(line.strip() for line in lines[number:end]).removeprefix(f"{word}:").strip()
        for (number, word), end in zip(starts, ends, strict=True)
    }
    if "" in texts.values():
        raise ValueError("one of the lines is empty")
    return texts


def functions(node: ast.AST, above: tuple[ast.AST, ...] = ()) -> Iterator[tuple[ast.AST, tuple[ast.AST, ...]]]:
    """Every node of a file, with the classes and functions around it, outermost first."""
    for child in ast.iter_child_nodes(node):
        yield child, above
        inside = (*above, child) if isinstance(child, Function | ast.ClassDef) else above
        yield from functions(child, inside)


def named(around: tuple[ast.AST, ...]) -> str:
    return ".".join(one.name for one in around if isinstance(one, Function | ast.ClassDef)) or "the module"


@cache
def waits(path: Path) -> list[Wait]:
    """The blocks of one file, in the order of its lines."""
    found = []
    for node, above in functions(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, Function) or not (docstring := ast.get_docstring(node)):
            continue
        file, function = str(path.relative_to(ROOT)), named((*above, node))
        try:
            texts = block(docstring)
        except ValueError as fault:
            raise AssertionError(f"{file}: {function}: {fault}") from fault
        if texts is not None:
            found.append(Wait(file, function, *(texts[word] for word in WORDS)))
    return found


def documented(module: ast.Module) -> set[str]:
    """Names of the functions of a file whose wait a block describes.

    The block is the function's own, that of a function that it calls or contains, or that of one that calls or contains it,
    directly or through others. So one block is enough for a public function and its private parts.
    """
    uses: dict[str, set[str]] = {}
    own: set[str] = set()
    for node, around in functions(module):
        inside = [one.name for one in around if isinstance(one, Function)]
        if isinstance(node, Function) and block(ast.get_docstring(node) or "") is not None:
            own.add(node.name)
        used = node.name if isinstance(node, Function) else _called(node)
        for name in inside if used else ():
            uses.setdefault(name, set()).add(used)
    known = own | {name for name, used in uses.items() if used & own}
    below = list(own)
    while below:
        for name in uses.get(below.pop(), set()) - known:
            known.add(name)
            below.append(name)
    return known


@cache
def promised(room: str) -> set[str]:
    """Names of the methods whose wait a Protocol of the room describes, for all classes that implement it."""
    return {
        method.name
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases)
        for method in node.body
        if isinstance(method, Function) and block(ast.get_docstring(method) or "") is not None
    }


def _called(node: ast.AST) -> str:
    """The name of a function of the same file, or of a method of the same object, that this calls; "" if it calls none."""
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
            return name
    return ""


@cache
def calls(path: Path) -> list[Called]:
    """Where one file waits visibly, or sets or reads a deadline."""
    found = []
    module = ast.parse(path.read_text(encoding="utf-8"))
    known = documented(module) | promised(path.relative_to(ROOT).parts[0])
    constants = {
        target.id: statement.value.value
        for statement in module.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for node, around in functions(module):
        if not isinstance(node, ast.Call) or (name := _name(node)) is None:
            continue
        given = [
            one.value if isinstance(one, ast.Constant) else constants.get(getattr(one, "id", "")) for one in node.args
        ]
        label = (str(given[0]), str(given[1])) if name == "waiting" and None not in given else None
        has_block = any(one.name in known for one in around if isinstance(one, Function))
        found.append(Called(str(path.relative_to(ROOT)), node.lineno, named(around), has_block, name, label))
    return found


def _name(call: ast.Call) -> str | None:
    match call.func:
        case ast.Name(id="waiting") | ast.Attribute(attr="waiting"):
            return "waiting"
        case ast.Attribute(attr="remaining_s"):
            return "remaining_s"
        case ast.Attribute(value=ast.Name(id="Deadline"), attr="after"):
            return "Deadline.after"
    return None


def all_waits() -> list[Wait]:
    return [wait for path in paths() for wait in waits(path)]


@cache
def labels_set() -> set[Label]:
    """Every label that the code gives to `waiting`; where it is not literal, those that the Metric line around it names."""
    literal = {called.label for path in paths() for called in calls(path) if called.label is not None}
    return literal | {
        label for wait in all_waits() if (wait.file, wait.function) in _variable() for label in wait.labels
    }


@cache
def _variable() -> set[tuple[str, str]]:
    """File and function of every `waiting` whose label is not literal."""
    return {
        (called.file, called.function)
        for path in paths()
        for called in calls(path)
        if called.name == "waiting" and called.label is None
    }


def metrics() -> set[str]:
    """Names of the metrics that the code declares; counters are exported with _total."""
    declared = set()
    for path in paths():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(name)) if re.fullmatch(r"ratchet_[a-z_]+", name):
                    declared |= {name, f"{name}_total"}
    return declared


# The tables of the page


def tables() -> str:
    """One table for each room, from the blocks."""
    parts = [BEGIN]
    for room in ROOMS:
        rows = [wait for wait in all_waits() if wait.room == room]
        if rows:
            parts += ["", f"### {room.capitalize()}", "", "| who | waits for | until | ended by | shown by |"]
            parts += ["| --- | --- | --- | --- | --- |", *(_row(wait) for wait in rows)]
    return "\n".join([*parts, "", END])


def _row(wait: Wait) -> str:
    cells = [f"`{wait.file}` `{wait.function}`", *map(_cell, (wait.waits_for, wait.until, wait.ended_by, wait.metric))]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Metrics and settings as code, unless they are already; no cell ends the row."""
    code = r'`[^`]*`|ratchet_[a-z_]+(?:\{[^}]*\})?|awaiting="[^"]*"|\b(?:deadlines|learner|rollout|verifier|weights)\.[a-z_]+\b'
    quoted = re.sub(code, lambda match: match[0] if match[0].startswith("`") else f"`{match[0]}`", text)
    return quoted.replace("|", "\\|")


def written(page: str) -> str:
    """The page with its tables made again."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no lines {BEGIN!r} and {END!r}")
    return before + tables() + after


def advised(page: str) -> set[Label]:
    """The labels for which the page says what to do: rows that begin with `room`: `awaiting`."""
    return {(room, awaiting) for room, awaiting in re.findall(r"^\| `([a-z]+)`: `([^`]+)` \|", page, re.MULTILINE)}


# What is held together


@pytest.mark.parametrize("path", paths(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_waits_says_so(path: Path) -> None:
    """A function that waits visibly, or makes a deadline or asks how much of it is left, is described by a block."""
    silent = [
        f"{called.file}:{called.line}: {called.function} calls {called.name} and its docstring has no block of {WORDS}"
        for called in calls(path)
        if not called.has_block
    ]
    assert not silent, "\n".join(silent)


def test_every_metric_line_names_a_metric_that_exists_or_says_why_there_is_none() -> None:
    declared, wrong = metrics(), []
    for wait in all_waits():
        where = f"{wait.file}: {wait.function}: Metric: {wait.metric}"
        unknown = set(re.findall(r"ratchet_[a-z_]+", wait.metric)) - declared
        if unknown:
            wrong.append(f"{where}: there is no {', '.join(sorted(unknown))}")
        elif "ratchet_" not in wait.metric and not re.match(r"none[^a-z.]+[a-z]|(those|that) of [a-z]", wait.metric):
            wrong.append(f"{where}: name a metric, or say why there is none")
    assert not wrong, "\n".join(wrong)


def test_every_label_is_one_that_the_code_sets_and_every_one_that_it_sets_is_in_a_block() -> None:
    said = {label for wait in all_waits() for label in wait.labels}
    assert said - labels_set() == set(), "labels in a Metric line that nothing sets"
    assert labels_set() - said == set(), "labels that no Metric line names"


def test_a_label_that_is_not_literal_is_named_by_the_block_around_it() -> None:
    for wait in all_waits():
        if (wait.file, wait.function) in _variable():
            assert wait.labels, f"{wait.file}: {wait.function}: name its labels in the Metric line"
            source = "".join(path.read_text(encoding="utf-8") for path in paths())
            for _, awaiting in wait.labels:
                assert f'"{awaiting}"' in source.replace(f'awaiting="{awaiting}"', ""), f"nothing says {awaiting!r}"


def test_the_page_has_every_wait_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, f"docs/operating.md is not what the code says; make it again: {COMMAND}"
    assert COMMAND in page


def test_the_page_says_for_every_label_what_to_do() -> None:
    advice = advised(PAGE.read_text(encoding="utf-8"))
    assert labels_set() - advice == set(), "labels without advice"
    assert advice - labels_set() == set(), "advice for labels that nothing sets"


# The reader of blocks


def test_a_block_is_read_with_lines_that_go_on() -> None:
    text = "Do it.\n\nWaits for: a\n  and b.\nUntil: c.\nEnded by: d.\nMetric: none: e."
    assert block(text) == {"Waits for": "a and b.", "Until": "c.", "Ended by": "d.", "Metric": "none: e."}
    assert block("Do it.") is None


@pytest.mark.parametrize("text", ["Waits for: a.", "Waits for: a.\nUntil:\nEnded by: b.\nMetric: c.", "Metric: a."])
def test_half_a_block_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        block(text)


def test_one_block_is_enough_for_a_function_and_its_private_parts() -> None:
    source = """
class Stream:
    def claim(self):
        '''Claim.

        Waits for: a.
        Until: b.
        Ended by: c.
        Metric: none: d.
        '''
        return self._again()

    def _again(self):
        return self._once()

    def _once(self): ...

    def join(self):
        return self.claim()

    def leave(self):
        return self._leave()

    def _leave(self): ...
"""
    assert documented(ast.parse(source)) == {"claim", "_again", "_once", "join"}


def test_a_label_without_a_room_has_the_room_before_it() -> None:
    wait = Wait("learner/a.py", "f", "", "", "", 'ratchet_waiting{room="a", awaiting="b"}, or awaiting="c"')
    assert wait.labels == {("a", "b"), ("a", "c")}


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(tables())
