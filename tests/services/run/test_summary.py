"""The summary counts what the run kept, not what a crash took back."""

import json
import math
from pathlib import Path

import pytest

from services.run.folder import RunFolder
from services.run.json_lines import JsonLines, read_json_lines
from services.run.summary import newest, summarize, write
from services.run.tail import Tail


def rows(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"attempt": attempt, "step": step} for attempt, step in pairs]


def test_steps_after_the_checkpoint_that_was_resumed_are_taken_back() -> None:
    first, second = [(1, 1), (1, 2), (1, 3), (1, 4)], [(2, 3), (2, 4), (2, 5)]
    assert newest(rows(*first, *second), "step") == rows((1, 1), (1, 2), (2, 3), (2, 4), (2, 5))


def test_a_resume_from_further_back_takes_back_more() -> None:
    kept = newest(rows((1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (3, 2)), "step")
    assert kept == rows((1, 1), (3, 2))


def test_a_start_that_wrote_nothing_takes_nothing_back() -> None:
    assert newest(rows((1, 1), (1, 2)), "step") == rows((1, 1), (1, 2))


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    lines = JsonLines(path)
    lines.write(step=1)
    lines.close()
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "cut')
    assert [row["step"] for row in read_json_lines(path)] == [1]


def test_the_next_start_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    shown = Tail(path)
    for step in (1, 2):
        lines = JsonLines(path)
        lines.write(step=step)
        lines.close()
        with path.open("a", encoding="utf-8") as file:
            file.write('{"step": 9, "cut')
        assert [row["step"] for row in shown.rows()] == [step]
    JsonLines(path).close()
    assert shown.rows() == []
    assert [row["step"] for row in read_json_lines(path)] == [1, 2]


def test_an_evaluation_of_which_nothing_came_back_is_no_accuracy(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with JsonLines(folder.evaluations) as evaluations:
        for version, accuracy in ((0, 0.25), (1, math.nan)):
            evaluations.write(attempt=1, policy_version=version, avg_at_k=accuracy)
    written = write(folder, summarize(folder, {}, {}, [])).read_text(encoding="utf-8")
    summary = json.loads(written, parse_constant=pytest.fail)
    assert (summary["accuracy_before"], summary["accuracy_after"]) == (0.25, None)
