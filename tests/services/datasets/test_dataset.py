import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from services.config.prompts import PromptsConfig, SourceConfig
from services.datasets.dataset import Problem, PromptCursor, load_problems, read_problems
from services.errors import InputError
from services.graders import known_graders

ROOT = Path(__file__).parents[3]


def settings(path: Path, kind: str = "jsonl", **fields: Any) -> SourceConfig:
    return PromptsConfig.model_validate({"source": {"type": kind, "path": str(path)}} | fields).each[0]


def jsonl(folder: Path, *rows: dict[str, Any] | bytes) -> Path:
    path = folder / "train.jsonl"
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows) + b"\n")
    return path


def row(**fields: Any) -> dict[str, Any]:
    return {"prompt": "1+1=", "reference": "2"} | fields


def test_a_plain_row_is_a_problem(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        row(),
        b"  ",
        row(
            prompt=[{"role": "user", "content": "2+2?", "name": "x"}],
            reference=4,
            grader="exact",
            options={"strip": False},
        ),
        row(source="a column nobody asked for", options=None),
    )
    assert load_problems(settings(path, options={"case_sensitive": False}, grader="math")) == [
        Problem(0, "1+1=", "2", "math", {"case_sensitive": False}),
        Problem(1, [{"role": "user", "content": "2+2?"}], 4, "exact", {"case_sensitive": False, "strip": False}),
        Problem(2, "1+1=", "2", "math", {"case_sensitive": False}),
    ]


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    path = jsonl(tmp_path, row(), row(), b"broken")
    assert len(load_problems(settings(path), limit=2)) == 2


def test_options_that_cannot_be_sent_are_refused_with_their_place_or_left_out(tmp_path: Path) -> None:
    path = jsonl(tmp_path, row(), row(options={"parts": [{"limit": 10**29}]}), row(options='{"pattern": "\\ud83d"}'))
    with pytest.raises(
        InputError,
        match=r"line 2: column options must .*options\.parts\[0\]\.limit is int 1000.* beyond 64 bits.*skip_",
    ):
        load_problems(settings(path))
    assert [problem.row for problem in load_problems(settings(path, skip_unreadable=True))] == [0]
    problems, unreadable = read_problems(settings(path))
    assert (len(problems), len(unreadable)) == (1, 2)
    assert "options.pattern is str" in str(unreadable[1])


def test_options_of_the_run_file_that_cannot_be_sent_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^prompts\.options\.limits\[1\] is int 1000.* beyond 64 bits"):
        load_problems(settings(jsonl(tmp_path, row()), options={"limits": [1, 10**29]}))


@pytest.mark.parametrize(
    "line", [b"broken", b"[1]", rb'{"prompt": "q \ud83d x", "reference": "2"}', b'{"prompt": "\xff"}']
)
def test_a_line_that_is_not_an_object_is_refused_or_left_out(tmp_path: Path, line: bytes) -> None:
    path = jsonl(tmp_path, row(), line, row())
    with pytest.raises(
        InputError, match=r"train\.jsonl line 2 is .*With skip_unreadable = true such rows are left out"
    ):
        load_problems(settings(path))
    assert [problem.row for problem in load_problems(settings(path, skip_unreadable=True))] == [0, 2]
    assert len(read_problems(settings(path))[1]) == 1


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"question": "1+1?", "gold": 2, "how": "exact", "extra": {"strip": True}})
    columns = {"prompt": "question", "reference": "gold", "grader": "how", "options": "extra"}
    assert load_problems(settings(path, columns=columns)) == [Problem(0, "1+1?", 2, "exact", {"strip": True})]


def test_gsm8k_takes_the_last_number_without_commas(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"question": "How many?", "answer": "First #### 7 <<1+1=2>>,\nthen more.\n#### 1,234\n"})
    assert load_problems(settings(path, columns="gsm8k")) == [Problem(0, "How many?", "1234", "math")]


def test_dapo_rows_are_chats_with_a_ground_truth(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Solve."}]
    path = tmp_path / "dapo.parquet"
    table = [{"prompt": messages, "reward_model": {"ground_truth": "34", "style": "rule"}, "data_source": "math_dapo"}]
    parquet.write_table(pyarrow.Table.from_pylist(table), path)
    problems = load_problems(settings(path, "parquet", columns="dapo-math-17k"))
    assert problems == [Problem(0, messages, "34", "math")]


def test_a_parquet_folder_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    for part in ("b", "a"):
        rows = [row(prompt=f"{part}{number}", options={"strip": True} if number else None) for number in range(3)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{part}.parquet")
    problems = load_problems(settings(tmp_path, "parquet"))
    assert [problem.prompt for problem in problems] == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert [problem.row for problem in problems] == list(range(6))
    assert [problem.options for problem in problems[:2]] == [{}, {"strip": True}]


def test_a_reference_survives_the_wire_whatever_number_it_is(tmp_path: Path) -> None:
    path = jsonl(tmp_path, row(reference=10**30), row(reference=-3.5), row(reference={"cases": [1, "2", None, True]}))
    assert [problem.reference for problem in load_problems(settings(path))] == [
        "1" + "0" * 30,
        -3.5,
        {"cases": [1, "2", None, True]},
    ]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b'{"prompt": "1+1=", ', "line 3 is not JSON: Input data was truncated"),
        (b"\xff\xfe", "line 3 is not JSON"),
        (b"[1, 2]", "line 3 is an array, not an object"),
        ({"prompt": "?"}, "line 3 has no column reference; it has prompt. Name the right ones in prompts.columns"),
        (row(prompt=12), "line 3: column prompt must be text or a list of messages with role and content, not int 12"),
        (row(prompt=""), "line 3: column prompt must be text"),
        (row(prompt=[{"role": "user"}]), "line 3: column prompt must be text or a list of messages"),
        (row(reference=None), "line 3: column reference must be a JSON value other than null, not NoneType None"),
        (row(grader="maths"), f'line 3: there is no grader "maths"; the known ones are {known_graders()}'),
        (row(grader=1), "line 3: column grader must be the name of a grader, not int 1"),
        (row(options=[1]), "line 3: column options must be an object, or its JSON text, not list [1]"),
    ],
)
def test_a_broken_row_is_named_with_its_place_and_what_is_wrong(tmp_path: Path, bad: Any, says: str) -> None:
    path = jsonl(tmp_path, row(), row(), bad, row())
    with pytest.raises(InputError) as fault:
        load_problems(settings(path))
    assert f"{path} {says}" in str(fault.value)


@pytest.mark.parametrize(
    ("columns", "bad", "says"),
    [
        ("gsm8k", {"question": "?", "answer": "It is 42."}, "column answer does not end in a line `#### 42`"),
        ("gsm8k", {"question": "?"}, "has no column answer; it has question"),
        ("dapo-math-17k", {"prompt": "?", "reward_model": {"style": 1}}, "has no column ground_truth; it has style"),
        (
            "dapo-math-17k",
            {"prompt": "?", "reward_model": "34"},
            "column reward_model must be an object with ground_truth",
        ),
        ({"prompt": "q", "reference": "a"}, {"q": "?", "b": 1}, "has no column a; it has q, b"),
    ],
)
def test_a_row_that_does_not_follow_its_convention_is_named(tmp_path: Path, columns: Any, bad: Any, says: str) -> None:
    path = jsonl(tmp_path, bad)
    with pytest.raises(InputError) as fault:
        load_problems(settings(path, columns=columns))
    assert says in str(fault.value)
    assert f"{path} line 1" in str(fault.value)


def test_a_convention_brings_its_grader_unless_the_settings_name_one(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": "Square it.", "test_list": ["assert f(2) == 4"]})
    (problem,) = load_problems(settings(path, columns="mbpp", options={"wall_s": 1.0}))
    assert (problem.grader, problem.options) == ("code", {"wall_s": 1.0})
    (problem,) = load_problems(settings(path, columns="mbpp", grader="remote"))
    assert problem.grader == "remote"
    with pytest.raises(
        InputError, match=r"prompts.grader = 'cod': there is no such grader; the known ones are \"choice\""
    ):
        load_problems(settings(path, columns="mbpp", grader="cod"))


UNREADABLE = {"question": "?", "answer": "It is 42."}
READABLE = {"question": "?", "answer": "#### 42"}


def test_rows_that_cannot_be_read_are_left_out_only_when_the_settings_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = jsonl(tmp_path, UNREADABLE, READABLE, UNREADABLE, READABLE, READABLE)
    with pytest.raises(InputError, match=r"line 1.* With skip_unreadable = true such rows are left out"):
        load_problems(settings(path, columns="gsm8k"))
    assert not caplog.messages
    problems = load_problems(settings(path, columns="gsm8k", skip_unreadable=True), limit=2)
    assert [problem.row for problem in problems] == [1, 3]
    assert len(load_problems(settings(path, columns="gsm8k", skip_unreadable=True))) == 3
    assert caplog.messages[1].startswith(f"{path}: 2 rows left out, 3 read. The first: {path} line 1: column answer")


def test_a_dataset_of_which_nothing_can_be_read_is_an_error_all_the_same(tmp_path: Path) -> None:
    path = jsonl(tmp_path, UNREADABLE, UNREADABLE)
    with pytest.raises(InputError, match=r"none of the 2 rows of .*train.jsonl can be read; the first: .* line 1"):
        load_problems(settings(path, columns="gsm8k", skip_unreadable=True))


def test_unknown_graders_are_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 2"):
        load_problems(settings(jsonl(tmp_path, row(), row(grader="maths")), skip_unreadable=True))


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("jsonl", "nowhere.jsonl", "cannot read the dataset .*nowhere.jsonl: No such file"),
        ("jsonl", "", "cannot read the dataset .*: Is a directory"),
        ("parquet", "nowhere.parquet", "cannot read the dataset .*nowhere.parquet"),
        ("parquet", "", "holds no .*parquet file"),
        ("jsonl", "empty.jsonl", "empty.jsonl is empty; it needs at least one row"),
        ("parquet", "empty.jsonl", "cannot read the dataset .*empty.jsonl"),
    ],
)
def test_a_dataset_that_is_not_there_is_named(tmp_path: Path, kind: str, name: str, says: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match=says):
        load_problems(settings(tmp_path / name, kind))


HUGGING_FACE = """
import sys
from services.config.prompts import PromptsConfig
from services.errors import InputError
from services.graders import known_graders
from services.datasets.dataset import load_problems
for name in sys.argv[1:]:
    try:
        print([problem.prompt for problem in load_problems(
            PromptsConfig.model_validate({"source": {"type": "huggingface", "name": name}}).each[0]
        )])
    except InputError as fault:
        print("InputError:", str(fault).replace(chr(10), " "))
"""


def test_hugging_face_datasets_come_from_folders_and_an_absent_one_is_named(tmp_path: Path) -> None:
    folder, saved = tmp_path / "folder", tmp_path / "saved"
    folder.mkdir()
    jsonl(folder, row(prompt="from a folder"))
    save = f"import datasets; datasets.Dataset.from_list([{row(prompt='saved')!r}]).save_to_disk({str(saved)!r})"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", save], env=environment, check=True, capture_output=True)
    command = [sys.executable, "-c", HUGGING_FACE, str(folder), str(saved), "nobody/no-such-dataset"]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT)
    from_folder, from_saved, absent = result.stdout.splitlines()
    assert (from_folder, from_saved) == ("['from a folder']", "['saved']")
    assert absent.startswith("InputError: cannot load the dataset nobody/no-such-dataset, subset default, split train")
    assert "Check name, subset and split" in absent


@given(seed=st.integers(0, 2**31 - 1), rows=st.integers(1, 60), epochs=st.integers(1, 4), shuffle=st.booleans())
def test_every_epoch_has_every_row_once(seed: int, rows: int, epochs: int, shuffle: bool) -> None:
    cursor = PromptCursor(seed, rows, shuffle=shuffle)
    places = [cursor.at(number) for number in range(rows * epochs)]
    for epoch in range(epochs):
        assert {place[0] for place in places[epoch * rows : (epoch + 1) * rows]} == {epoch}
        assert sorted(place[1] for place in places[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@given(st.integers(0, 2**31 - 1), st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_a_place_depends_on_seed_and_number_alone(seed: int, numbers: list[int]) -> None:
    in_turn, cursor = PromptCursor(seed, 37, shuffle=True), PromptCursor(seed, 37, shuffle=True)
    expected = [in_turn.at(number) for number in range(501)]
    assert [cursor.at(number) for number in numbers] == [expected[number] for number in numbers]


def test_epochs_and_seeds_differ_in_order_and_without_shuffle_nothing_does() -> None:
    cursor = PromptCursor(1, 100, shuffle=True)
    orders = [[cursor.at(epoch * 100 + place)[1] for place in range(100)] for epoch in range(3)]
    other = PromptCursor(2, 100, shuffle=True)
    orders.append([other.at(place)[1] for place in range(100)])
    assert len({tuple(order) for order in orders}) == 4
    plain = PromptCursor(1, 100, shuffle=False)
    assert [plain.at(100 + place)[1] for place in range(100)] == list(range(100))


def test_reading_a_dataset_pulls_in_nothing_heavy(tmp_path: Path) -> None:
    path = jsonl(tmp_path, row())
    program = f"""
import sys
from services.config.prompts import PromptsConfig
from services.datasets.dataset import load_problems
load_problems(PromptsConfig.model_validate({{"source": {{"type": "jsonl", "path": {str(path)!r}}}}}).each[0])
print({{"torch", "transformers", "datasets", "pyarrow", "verifier"}} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "set()"
