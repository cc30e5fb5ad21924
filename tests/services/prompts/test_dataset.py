"""Datasets in every supported form, and errors that name the row."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config.prompts import (
    ColumnMap,
    Convention,
    HuggingFaceSource,
    JsonlSource,
    ParquetSource,
    PromptsConfig,
)
from services.errors import InputError
from services.prompts.dataset import PromptCursor, load_problems

PLAIN = [{"prompt": "1+1=", "reference": "2"}, {"prompt": "2+2=", "reference": 4, "options": {"strip": True}}]
GSM8K = [{"question": "How many?", "answer": "It is 1,200 + 34.\n#### 1,234"}]
DAPO = [
    {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": "Solve it."}],
        "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    }
]


def jsonl(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(path: Path, columns: Convention | ColumnMap = "plain") -> PromptsConfig:
    return PromptsConfig(source=JsonlSource(path=path), columns=columns, grader="exact", options={"case": False})


def test_plain_columns(tmp_path: Path) -> None:
    first, second = load_problems(settings(jsonl(tmp_path, PLAIN)))
    assert (first.row, first.prompt, first.reference, first.grader) == (0, "1+1=", "2", "exact")
    assert second.reference == 4
    assert second.options == {"case": False, "strip": True}


def test_a_row_may_name_its_own_grader(tmp_path: Path) -> None:
    (problem,) = load_problems(settings(jsonl(tmp_path, [PLAIN[0] | {"grader": "math"}])))
    assert problem.grader == "math"


def test_gsm8k_columns(tmp_path: Path) -> None:
    (problem,) = load_problems(settings(jsonl(tmp_path, GSM8K), "gsm8k"))
    assert (problem.prompt, problem.reference) == ("How many?", "1234")


def test_dapo_columns(tmp_path: Path) -> None:
    (problem,) = load_problems(settings(jsonl(tmp_path, DAPO), "dapo-math-17k"))
    assert (problem.prompt, problem.reference) == ([{"role": "user", "content": "Solve it."}], "34")


def test_mapped_columns(tmp_path: Path) -> None:
    rows = [{"task": "1+1=", "solution": "2", "judge": "math"}]
    columns = ColumnMap(prompt="task", reference="solution", grader="judge")
    (problem,) = load_problems(settings(jsonl(tmp_path, rows), columns))
    assert (problem.prompt, problem.reference, problem.grader) == ("1+1=", "2", "math")


@pytest.mark.parametrize(("rows", "columns"), [(PLAIN[:1], "plain"), (GSM8K, "gsm8k"), (DAPO, "dapo-math-17k")])
def test_parquet_reads_as_jsonl_does(tmp_path: Path, rows: list[Any], columns: Convention) -> None:
    expected = load_problems(settings(jsonl(tmp_path, rows), columns))
    parts = tmp_path / "parts"
    parts.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parts / "0.parquet")
    for path in (parts / "0.parquet", parts):
        source = ParquetSource(path=path)
        assert load_problems(settings(tmp_path, columns).model_copy(update={"source": source})) == expected


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    expected = load_problems(settings(jsonl(tmp_path, GSM8K), "gsm8k"))
    source = HuggingFaceSource(name=str(tmp_path))
    assert load_problems(settings(tmp_path, "gsm8k").model_copy(update={"source": source})) == expected


def test_a_hugging_face_dataset_that_is_not_there(tmp_path: Path) -> None:
    source = HuggingFaceSource(name=str(tmp_path / "nowhere"), subset="main")
    with pytest.raises(InputError, match=r"cannot load the Hugging Face dataset .*nowhere:main:train"):
        load_problems(settings(tmp_path).model_copy(update={"source": source}))


@pytest.mark.parametrize(
    ("row", "columns", "complaint"),
    [
        ({"prompt": "1+1="}, "plain", "no column \"reference\"; there are 'prompt'"),
        ({"prompt": "", "reference": "2"}, "plain", "the prompt is empty"),
        ({"prompt": 7, "reference": "2"}, "plain", "a prompt is a text or a list of messages"),
        ({"prompt": [{"content": "x"}], "reference": "2"}, "plain", "messages with role and content"),
        ({"prompt": "1+1=", "reference": None}, "plain", "the reference is null"),
        ({"prompt": "1+1=", "reference": "2", "grader": "maths"}, "plain", "no grader 'maths'; there are"),
        ({"prompt": "1+1=", "reference": "2", "options": 3}, "plain", 'column "options" is 3, not an object'),
        ({"question": "x", "answer": "42"}, "gsm8k", 'does not end with "#### NUMBER"'),
        ({"prompt": "x", "reward_model": "34"}, "dapo-math-17k", 'column "reward_model" is'),
        (["a list"], "plain", "a list, not a JSON object"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: Any, columns: Convention, complaint: str) -> None:
    good = {"plain": PLAIN, "gsm8k": GSM8K, "dapo-math-17k": DAPO}[columns][0]
    with pytest.raises(InputError) as error:
        load_problems(settings(jsonl(tmp_path, [good, row]), columns))
    assert "rows.jsonl, line 2" in str(error.value)
    assert complaint in str(error.value)


@pytest.mark.parametrize("line", [b'{"prompt": "1', b"\xff\xfe", b"nonsense"])
def test_a_broken_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "1+1=", "reference": "2"}\n\n' + line + b"\n")
    with pytest.raises(InputError, match=r"rows\.jsonl, line 3: not a JSON object"):
        load_problems(settings(path))


def test_missing_and_empty_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the dataset .*none\.jsonl: No such file"):
        load_problems(settings(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="is empty"):
        load_problems(settings(jsonl(tmp_path, [])))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"broken\.parquet as Parquet"):
        load_problems(settings(tmp_path).model_copy(update={"source": ParquetSource(path=broken)}))


def test_a_limit_takes_the_first_rows(tmp_path: Path) -> None:
    assert [p.row for p in load_problems(settings(jsonl(tmp_path, PLAIN)), limit=1)] == [0]


@given(st.integers(0, 1000), st.integers(1, 50), st.integers(0, 5), st.booleans())
def test_every_epoch_visits_every_row_once(seed: int, rows: int, epoch: int, shuffle: bool) -> None:
    cursor = PromptCursor(seed, rows, shuffle=shuffle)
    visited = [cursor.at(epoch * rows + place) for place in range(rows)]
    assert {e for e, _ in visited} == {epoch}
    assert sorted(row for _, row in visited) == list(range(rows))


@given(st.integers(0, 1000), st.integers(1, 50), st.lists(st.integers(0, 500), max_size=30))
def test_the_order_depends_on_seed_and_number_alone(seed: int, rows: int, numbers: list[int]) -> None:
    cursor = PromptCursor(seed, rows, shuffle=True)
    assert [cursor.at(n) for n in numbers] == [PromptCursor(seed, rows, shuffle=True).at(n) for n in numbers]


def test_epochs_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [PromptCursor(seed, 50, shuffle=True).at(epoch * 50 + place)[1] for place in range(50)]

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert [PromptCursor(3, 50, shuffle=False).at(place)[1] for place in range(50)] == list(range(50))
