"""Rows say where they were found."""

from pathlib import Path

import pytest

from services.config.prompts import JsonlSource
from services.datasets.sources import Row, UnreadableRow, rows
from services.errors import InputError


def jsonl(tmp_path: Path, text: str) -> JsonlSource:
    (tmp_path / "train.jsonl").write_bytes(text.encode())
    return JsonlSource(path=tmp_path / "train.jsonl")


def test_a_row_has_its_line(tmp_path: Path) -> None:
    found = [row for row in rows(jsonl(tmp_path, '\ufeff{"a": 1}\n\n{"a": 2}\n')) if isinstance(row, Row)]
    assert [(row.place.removeprefix(f"{tmp_path}/"), row.fields) for row in found] == [
        ("train.jsonl line 1", {"a": 1}),
        ("train.jsonl line 3", {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("line", "kind"),
    [("[]", "an array"), ('"a"', "a string"), ("null", "null"), ("true", "a truth value"), ("1", "a number")],
)
def test_a_line_that_is_not_an_object_says_what_it_is(tmp_path: Path, line: str, kind: str) -> None:
    (found,) = rows(jsonl(tmp_path, line))
    assert isinstance(found, UnreadableRow)
    assert f"line 1 is {kind}, not an object; write one JSON object per line" in str(found)


@pytest.mark.parametrize(
    "line", ['{"a": ', r'{"a": "q \ud83d x"}', r'{"a": "\udc00"}', "\x00", '{"a": NaN}', "[" * 5000]
)
def test_a_line_that_is_not_json_is_shown_and_the_others_are_read(tmp_path: Path, line: str) -> None:
    before, fault, after = rows(jsonl(tmp_path, f'{{"a": 1}}\n{line}\n{{"a": 2}}\n'))
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert isinstance(fault, UnreadableRow)
    assert "line 2 is not JSON: " in str(fault)
    assert f"It begins {(line.encode() + b'|')[:60]!r}" in str(fault).replace(r"\n'", "|'")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the dataset .*gone.jsonl: No such file"):
        list(rows(JsonlSource(path=tmp_path / "gone.jsonl")))
