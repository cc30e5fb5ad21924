"""The JSON lines of a run survive a crash."""

from pathlib import Path

from services.run.json_lines import JsonLines, read_json_lines


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
