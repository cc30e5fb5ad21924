"""The display follows what the services write, also where a crash cut it off."""

from pathlib import Path

from services.command.live_display import Tail
from services.run.json_lines import JsonLines, read_json_lines


def test_a_line_that_a_crash_cut_off_does_not_end_the_display(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    tail = Tail(path)
    path.write_text('{"step": 1}\n{"step": 2, "pass_r', encoding="utf-8")
    assert tail.read() == [{"step": 1}]
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 2}\n{"step": 3}\n')  # the next start, in the same line
    assert tail.read() == [{"step": 3}]


def test_the_next_start_begins_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    tail = Tail(path)
    path.write_text('{"step": 1}\n{"step": 2, "pass_r', encoding="utf-8")
    for step in (2, 3):  # nothing is cut off before the second of these starts
        lines = JsonLines(path)
        lines.write(step=step)
        lines.close()
    assert [row["step"] for row in tail.read()] == [1, 2, 3]
    assert [row["step"] for row in read_json_lines(path)] == [1, 2, 3]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4
