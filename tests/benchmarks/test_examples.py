"""What the examples learn is told as their runs told it."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.examples import picture, table

RUNS = [
    {
        "accuracy": [(0, 0.2), (40, end)],
        "pass_rate": [(step, 0.2 + step / 100) for step in range(1, 41)],
        "talking": [(1, 0.5), (40, 1.0)],
    }
    for end in (0.8, 0.9, 1.0)
]


def test_the_table_has_each_seed_and_the_mean_with_its_interval() -> None:
    assert table("guessing", RUNS).splitlines() == [
        "| guessing | step 0 | step 40 |",
        "|---|---|---|",
        "| seed 0 | 0.200 | 0.800 |",
        "| seed 1 | 0.200 | 0.900 |",
        "| seed 2 | 0.200 | 1.000 |",
        "| mean | 0.200 ± 0.000 | 0.900 ± 0.248 |",
        "",
        "Spoke more than once: 0.500 ± 0.000 of the first step kept, 1.000 ± 0.000 of the last.",
    ]


def test_a_run_that_is_not_a_conversation_has_no_share_that_spoke_more_than_once() -> None:
    assert "Spoke" not in table("two_sources", [{**run, "talking": []} for run in RUNS])


def test_the_picture_shows_every_seed(tmp_path: Path) -> None:
    three, one = picture("two_sources", RUNS, tmp_path / "three"), picture("two_sources", RUNS[:1], tmp_path / "one")
    assert three.name == "example-two-sources.png"
    assert colors(three) > colors(one)


def colors(path: Path) -> int:
    with Image.open(path) as drawn:
        return len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0))
