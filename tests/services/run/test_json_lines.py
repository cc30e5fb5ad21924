"""JSON lines are readable while they grow and after a crash."""

import os
from pathlib import Path

from services.run.json_lines import LAST_BYTES, JsonLines, json_rows, last_row, read_json_lines


def test_rows_are_there_at_once_with_their_time(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "new" / "steps.jsonl")
    lines.write(step=1, loss=0.5)
    lines.close()
    (row,) = read_json_lines(tmp_path / "new" / "steps.jsonl")
    assert row.pop("at_unix_s") > 1.7e9
    assert row == {"step": 1, "loss": 0.5}


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "steps.jsonl") == []


def test_pieces_that_are_not_rows_are_left_out() -> None:
    assert json_rows(b'p": 1}\n{"step": 2}\n\xff\xfe\n{"st') == [{"step": 2}]


def test_a_line_cut_off_by_a_crash_costs_neither_its_neighbor_nor_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    assert read_json_lines(path) == []
    lines = JsonLines(path)
    lines.write(step=1)
    lines.close()
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    lines = JsonLines(path)
    lines.write(step=3)
    lines.close()
    assert [row["step"] for row in read_json_lines(path)] == [1, 3]


def test_the_last_row_is_the_last_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert last_row(path) is None
    path.touch()
    assert last_row(path) is None
    with JsonLines(path) as lines:
        for number in range(3):
            lines.write(number=number, filler="x" * (LAST_BYTES // 2))
    row = last_row(path)
    assert row is not None
    assert row["number"] == 2


def test_the_last_row_is_found_however_long_it_is_and_without_reading_what_is_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.touch()
    os.truncate(path, 2**38)  # of holes; more than there is memory for
    with JsonLines(path) as lines:
        lines.write(number=1)
        lines.write(number=2, filler="x" * (5 * LAST_BYTES))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"number": 3, "cut o')
    row = last_row(path)
    assert row is not None
    assert row["number"] == 2
