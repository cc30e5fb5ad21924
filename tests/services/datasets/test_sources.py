"""Rows say where they were found."""

from pathlib import Path

import pytest

from services.config.prompts import JsonlSource
from services.datasets.sources import rows
from services.errors import InputError


def jsonl(tmp_path: Path, text: str) -> JsonlSource:
    (tmp_path / "train.jsonl").write_bytes(text.encode())
    return JsonlSource(path=tmp_path / "train.jsonl")


def test_a_row_has_its_line(tmp_path: Path) -> None:
    found = list(rows(jsonl(tmp_path, '\ufeff{"a": 1}\n\n{"a": 2}\n')))
    assert [(row.place.removeprefix(f"{tmp_path}/"), row.fields) for row in found] == [
        ("train.jsonl line 1", {"a": 1}),
        ("train.jsonl line 3", {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("line", "kind"),
    [("[]", "an array"), ('"a"', "a string"), ("null", "null"), ("true", "a truth value"), ("1", "a number")],
)
def test_a_line_that_is_not_an_object_says_what_it_is(tmp_path: Path, line: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"line 1 is {kind}, not an object; write one JSON object per line"):
        list(rows(jsonl(tmp_path, line)))


def test_a_line_that_is_not_json_is_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'line 2 is not JSON: .* It begins b.\{"a": '):
        list(rows(jsonl(tmp_path, '{"a": 1}\n{"a": \n')))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the dataset .*gone.jsonl: No such file"):
        list(rows(JsonlSource(path=tmp_path / "gone.jsonl")))
