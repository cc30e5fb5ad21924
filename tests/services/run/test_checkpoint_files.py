"""A file of a checkpoint that is damaged is named, with what to do."""

import json
from pathlib import Path

import pytest

from learner.checkpoint import Checkpoints, read_json
from services.errors import InputError
from services.run import made_of
from services.run.checkpoint_files import read_object

WHOLE = json.dumps({"schema": 1, "made_of": {"seed": {"is": "0", "digest": "abc"}}})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-00000002"
    folder.mkdir()
    for name in ("state.json", "engine.json"):
        (folder / name).write_text(WHOLE, encoding="utf-8")
    return folder


def test_a_whole_file_is_read(checkpoint: Path) -> None:
    assert read_object(checkpoint, "state.json") == json.loads(WHOLE)
    assert made_of.saved_in(checkpoint) == {"seed": {"is": "0", "digest": "abc"}}


@pytest.mark.parametrize("name", ["state.json", "engine.json"])
@pytest.mark.parametrize(
    "content", [b"", WHOLE[:20].encode(), b"\0" * 512, b"\xff\xfe", b"[]", b"null", b"[" * 100_000]
)
def test_a_damaged_file_is_named_with_what_to_do(checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"step-00000002/{name} is damaged: .*Delete the folder .*step-00000002 to go on from"
    ):
        read_json(checkpoint, name)


def test_a_file_that_is_gone_is_named(checkpoint: Path) -> None:
    (checkpoint / "state.json").unlink()
    with pytest.raises(InputError, match=r"state\.json is damaged: .*No such file"):
        Checkpoints.state(checkpoint)


@pytest.mark.parametrize(
    "record", [[1], "seed", {"seed": 1}, {"seed": {"is": "0"}}, {"seed": {"is": "0", "digest": 7}}]
)
def test_a_record_of_what_a_run_was_made_of_is_whole_or_named(checkpoint: Path, record: object) -> None:
    (checkpoint / "state.json").write_text(json.dumps({"schema": 1, "made_of": record}), encoding="utf-8")
    with pytest.raises(InputError, match=r"state\.json is damaged: made_of: .*Delete the folder"):
        made_of.saved_in(checkpoint)
