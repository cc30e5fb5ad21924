"""What the page keeps of a run does not grow without end, and nothing that it shows is lost by that."""

from pathlib import Path

import pytest

from services.errors import InputError
from services.page import curves, dead
from services.page.curves import Curves
from services.page.dead import DeadLetters
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.streams.redis_connection import RedisConnection


def test_of_many_steps_the_older_ones_are_thinned_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_KEPT", 100)
    followed = Curves(tmp_path / "steps.jsonl")
    with JsonLines(tmp_path / "steps.jsonl") as lines:
        for step in range(1, 501):
            lines.write(step=step, pass_rate=0.5)
            if step % 7 == 0:
                followed.read()
    followed.read()
    steps = followed.since(0, followed.revision)["columns"]["step"]
    assert len(steps) <= 100
    assert steps[0] == 1
    assert steps[-20:] == list(range(481, 501))
    assert followed.since(490, followed.revision)["columns"]["step"] == list(range(491, 501))


def test_of_many_dead_groups_the_oldest_are_read_from_the_file_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_connection: RedisConnection
) -> None:
    monkeypatch.setattr(dead, "MOST_KEPT", 2)
    folder = RunFolder(tmp_path)
    letters = DeadLetters(folder)
    with JsonLines(folder.dead) as lines:
        for number in (0, 1, 2, 3, 1):
            lines.write(group_id=f"train-{number}", stage="scored", cause="c", row=0, purpose="train", prompt=None)
    letters.read()
    shown = letters.shown()
    assert shown["count"] == 4
    assert [one["group"] for one in shown["newest"]] == ["train-1", "train-3"]
    with pytest.raises(InputError, match="train-0 could not be decoded"):
        letters.requeue("train-0", redis_connection, "r")
    with pytest.raises(InputError, match="no dead group is called train-9"):
        letters.requeue("train-9", redis_connection, "r")
