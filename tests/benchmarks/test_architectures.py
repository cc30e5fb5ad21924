"""The table of architectures on docs/models.md is the one that the results say, and its rows hold what they claim."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.architectures.__main__ import PAGE, RESULTS, WANTED, in_order, with_table
from benchmarks.architectures.models import MODELS
from benchmarks.architectures.results import Gap, Row, append, read, table

NONE, SMALL, LARGE = Gap(0.0, 0.0), Gap(1e-5, 1e-4), Gap(0.4, 2.0)
GOOD = Row(
    "Qwen2",
    "float32",
    "Qwen2ForCausalLM",
    packs=True,
    disk=SMALL,
    unchanged=NONE,
    moved=LARGE,
    swapped=SMALL,
    sampled=SMALL,
    transformers=SMALL,
    exported=NONE,
)


def test_the_page_shows_the_results_that_there_are() -> None:
    rows = in_order(read(RESULTS))
    assert {(row.name, row.dtype) for row in rows} <= set(WANTED)
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, rows) == page, "run `python -m benchmarks.architectures --table`"


OLDER_DIFFERS = {("OLMo 3, window", "float32")}
"""Rows where transformers 4.57.3 alone says something else of an export. docs/models.md says so."""


def test_what_config_accepts_agrees() -> None:
    apart = [row for row in read(RESULTS) if row.refused is None and not row.agrees]
    assert {(row.name, row.dtype) for row in apart} == OLDER_DIFFERS
    assert all(fault.startswith("export in an older transformers") for row in apart for fault in row.failures())


@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_one_that_transformers_describes(name: str) -> None:
    assert MODELS[name].config().vocab_size == 96


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"swapped": LARGE}, "weights swapped in: 0.4, 2 nats"),
        ({"sampled": Gap(float("nan"), float("nan"))}, "sampled tokens: nan, nan nats"),
        ({"exported": None}, "export in vLLM: not tried"),
        ({"older": LARGE}, "export in an older transformers: 0.4, 2 nats"),
        ({"unchanged": SMALL}, "its own weights, sent to it, moved it by 0.0001 nats"),
        ({"moved": NONE}, "the change of weights is too small to show: 0 nats"),
    ],
)
def test_a_row_that_does_not_agree_says_where(change: dict[str, Gap | None], said: str) -> None:
    assert GOOD.agrees
    row = replace(GOOD, **change)  # type: ignore[arg-type]
    assert row.failures() == [said]
    assert not row.agrees


def test_bfloat16_is_held_to_what_rounding_does_to_the_learner() -> None:
    row = replace(GOOD, dtype="bfloat16", rounding=Gap(0.05, 0.3), disk=Gap(0.1, 0.9), moved=Gap(1.0, 3.0))
    assert row.agrees
    assert replace(row, disk=Gap(0.12, 0.2)).failures() == ["weights on disk: 0.12, 0.2 nats"]


def test_results_come_back_as_they_were_and_the_last_of_a_row_counts(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert read(file) == []
    append(file, replace(GOOD, fault="it ended"))
    append(file, GOOD)
    append(file, replace(GOOD, dtype="bfloat16", refused="no | good"))
    assert read(file) == [GOOD, replace(GOOD, dtype="bfloat16", refused="no | good")]
    assert len({line.count("|") - line.count("\\|") for line in table(read(file)).splitlines()}) == 1
