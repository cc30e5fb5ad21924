"""The run folder says which generation of the weight group was the last."""

from pathlib import Path

from learner.publish.sync_report import last_generation
from services.run.json_lines import JsonLines


def test_the_last_broadcast_names_the_last_generation(tmp_path: Path) -> None:
    path = tmp_path / "syncs.jsonl"
    assert last_generation(path) == 0
    with JsonLines(path) as lines:
        for generation in (1, 1, 3):
            lines.write(pg_generation=generation, filler="x" * 40_000)
    assert last_generation(path) == 3
    with path.open("a") as file:
        file.write('{"pg_generation": 4')  # cut off by a crash
    assert last_generation(path) == 3
