"""A file of a checkpoint that is damaged is named, with what to do."""

import json
from pathlib import Path

import pytest

from learner.checkpoint import Checkpoints, read_json
from services.errors import InputError
from services.run import made_of
from services.run.checkpoint_files import Damaged, check_whole, newest_whole, read_object, sizes

WHOLE = json.dumps({"schema": 2, "made_of": {"seed": {"is": "0", "digest": "abc"}}})


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
    with pytest.raises(InputError, match=rf"step-00000002/{name} is damaged: "):
        read_json(checkpoint, name)


def test_a_file_that_is_gone_is_named(checkpoint: Path) -> None:
    (checkpoint / "state.json").unlink()
    with pytest.raises(InputError, match=r"state\.json is damaged: .*No such file"):
        Checkpoints.state(checkpoint)


@pytest.mark.parametrize(
    "record", [[1], "seed", {"seed": 1}, {"seed": {"is": "0"}}, {"seed": {"is": "0", "digest": 7}}]
)
def test_a_record_of_what_a_run_was_made_of_is_whole_or_named(checkpoint: Path, record: object) -> None:
    (checkpoint / "state.json").write_text(json.dumps({"schema": 2, "made_of": record}), encoding="utf-8")
    with pytest.raises(InputError, match=r"state\.json is damaged: made_of: "):
        made_of.saved_in(checkpoint)


PARTS = ("engine/model_states.pt", "engine/optim_states.pt", "reference_rank_0.pt", "engine.json")


def committed(folder: Path, version: int = 2) -> Path:
    """A checkpoint as the learner commits it."""
    checkpoints = Checkpoints(folder, keep=2)
    staging = checkpoints.begin(version)
    for name in PARTS:
        (staging / name).parent.mkdir(exist_ok=True)
        (staging / name).write_bytes(WHOLE.encode())
    return checkpoints.commit(staging, version, {"made_of": {}})


def test_a_whole_checkpoint_is_read(tmp_path: Path) -> None:
    checkpoint = committed(tmp_path)
    check_whole(checkpoint)
    assert Checkpoints.state(checkpoint)["files"] == dict.fromkeys(PARTS, len(WHOLE)) == sizes(checkpoint)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "it is missing"),
        (b"", f"it has 0 bytes and was written with {len(WHOLE)}"),
        (b"PK\3\4", "it has 4 bytes"),
    ],
)
def test_a_part_that_is_missing_or_cut_off_is_named_before_an_engine_starts(
    tmp_path: Path, part: str, content: bytes | None, why: str
) -> None:
    checkpoint = committed(tmp_path)
    (checkpoint / part).unlink() if content is None else (checkpoint / part).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"step-00000002/{part} is damaged: {why}.*goes on from the checkpoint before"
    ):
        Checkpoints.state(checkpoint)


def test_a_checkpoint_of_before_sizes_were_written_is_read(checkpoint: Path) -> None:
    check_whole(checkpoint)


@pytest.mark.parametrize("name", ["state.json", "engine.json"])
def test_a_changed_digit_in_a_json_file_is_found(tmp_path: Path, name: str) -> None:
    checkpoint = committed(tmp_path)
    content = (checkpoint / name).read_text()
    (checkpoint / name).write_text(content.replace('"schema": 2', '"schema": 3'))
    with pytest.raises(Damaged, match=rf"{name} is damaged: it does not have the digest"):
        check_whole(checkpoint)


def test_a_state_with_figures_that_json_changes_is_as_it_was_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    state = {"by step": {10: 0.1, 9: float("nan")}, "infinite": float("inf"), "pair": (1, 2)}
    check_whole(checkpoints.commit(checkpoints.begin(1), 1, state))


def cut_off(checkpoint: Path, part: str) -> None:
    (checkpoint / part).write_bytes(b"PK")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_with_a_warning(tmp_path: Path) -> None:
    before, newest = committed(tmp_path, 2), committed(tmp_path, 4)
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == newest
    assert said == []
    cut_off(newest, "reference_rank_0.pt")
    assert newest_whole(tmp_path, said.append) == before
    assert said == [
        f"{newest}/reference_rank_0.pt is damaged: it has 2 bytes and was written with {len(WHOLE)}; going on from "
        "step-00000002, the checkpoint before it"
    ]


def test_where_all_are_damaged_each_is_named_with_what_to_do(tmp_path: Path) -> None:
    cut_off(committed(tmp_path, 2), "engine.json")
    (committed(tmp_path, 4) / "state.json").unlink()
    with pytest.raises(InputError) as error:
        newest_whole(tmp_path)
    said = str(error.value).splitlines()
    assert said[0] == f"no checkpoint in {tmp_path} can be gone on from:"
    assert [line.split(" is damaged: ")[0] for line in said[1:3]] == [
        f"  {tmp_path}/step-00000004/state.json",
        f"  {tmp_path}/step-00000002/engine.json",
    ]
    assert said[3].startswith("Put a copy of one of them in its place; or choose another name")


def test_there_may_be_no_checkpoint(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "checkpoints") is None
