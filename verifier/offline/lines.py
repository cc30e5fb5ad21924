"""The lines of a file for `ratchet verify`, each as an item to score. A line that cannot be scored is an error that names it.

Datasets have columns of their own, so members other than ours are ignored, and the report lists them. One that looks like a
misspelling of ours is an error, because an `expectd` that is ignored would be a check that never fails.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from services.errors import InputError
from services.graders import graders, known_graders
from services.wire.verdict import Verdict
from verifier.contract import ScoreItem, is_deeper


@dataclass(frozen=True, slots=True)
class Defaults:
    """What applies to a line that does not say otherwise."""

    grader: str
    options: dict[str, Any]
    """Options of `grader`. A line that names another grader does not get them."""
    max_depth: int
    """Objects and arrays within each other."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    """From 1."""
    item: ScoreItem
    expected: Verdict | None


class _Written(msgspec.Struct, frozen=True):
    response: str
    reference: Any
    grader: str | None = None
    options: dict[str, Any] | None = None
    response_tokens: int | None = None
    expected: Verdict | None = None
    id: str | int | None = None


SLIP_LIKENESS = 0.8
_decoder = msgspec.json.Decoder(dict[str, Any])


def read_lines(file: Path, defaults: Defaults, ignored: set[str]) -> Iterator[Line]:
    """The lines of the file, without empty ones. ignored: gets the names of members that are not ours. Raises InputError
    naming file and line."""
    if file.exists() and not file.is_file():
        raise InputError(
            f"{file} is not a plain file; it is read twice, because wrong lines are found before the first verdict"
        )
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # some editors put it before UTF-8
                if text.strip():
                    try:
                        yield _line(number, text, defaults, ignored)
                    except (msgspec.MsgspecError, RecursionError, _Unusable) as fault:
                        raise InputError(f"{file}, line {number}: {fault}") from fault
    except OSError as fault:
        raise InputError(f"{file} cannot be read: {fault.strerror}") from fault


class _Unusable(Exception):
    pass


def _line(number: int, text: bytes, defaults: Defaults, ignored: set[str]) -> Line:
    members = _decoder.decode(text)
    for name in members.keys() - set(_Written.__struct_fields__) - ignored:
        if near := difflib.get_close_matches(name, _Written.__struct_fields__, n=1, cutoff=SLIP_LIKENESS):
            raise _Unusable(f'"{name}" is not a known member; did you mean "{near[0]}"?')
        ignored.add(name)
    written = msgspec.convert(members, _Written)
    grader = written.grader or defaults.grader
    if grader not in graders():
        raise _Unusable(f'unknown grader "{grader}"; known: {known_graders()}')
    options = written.options
    if options is None:
        options = defaults.options if grader == defaults.grader else {}
    if is_deeper([written.reference, options], defaults.max_depth + 1):
        raise _Unusable(f"more than {defaults.max_depth} objects and arrays within each other")
    name = str(number) if written.id is None else str(written.id)
    item = ScoreItem(name, grader, written.response, written.reference, options, written.response_tokens)
    return Line(number, item, written.expected)
