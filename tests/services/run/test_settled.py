"""The record of what became of each group."""

from pathlib import Path

from services.run.settled import SettledLog, read_settled


def begun(path: Path, attempt: int, mark: str | None = None, watermark: int = 0) -> SettledLog:
    return SettledLog(path, attempt, version=0, mark=mark, watermark=watermark, above=(), open_below=())


def test_what_was_settled_before_a_step_belongs_to_it_whichever_row_has_it(tmp_path: Path) -> None:
    """A server that is emptied in the middle of gathering has a row of its own, with the groups dropped until then."""
    record = begun(tmp_path / "settled.jsonl", 1)
    record.emptied([(0, "dropped", "zero_variance")], issued_again=1, held=[])
    record.step(1, [(1, "trained", "")], issued=3)
    record.step(2, [(2, "trained", "")], issued=3)
    record.close()
    assert read_settled(tmp_path / "settled.jsonl").steps == {1: (1, [0, 1]), 2: (1, [2])}


def test_what_an_earlier_start_settled_after_its_last_step_is_no_part_of_a_later_one(tmp_path: Path) -> None:
    record = begun(tmp_path / "settled.jsonl", 1)
    mark = record.checkpoint(0, [(0, "dropped", "zero_variance")], issued=2)
    record.close()
    record = begun(tmp_path / "settled.jsonl", 2, mark, watermark=1)
    record.step(1, [(1, "trained", "")], issued=2)
    record.close()
    assert read_settled(tmp_path / "settled.jsonl").steps == {1: (2, [1])}
