"""The benchmark of attention, tiny: every way says the same, and the table and its JSON are written."""

import json
from pathlib import Path

from benchmarks.attention.__main__ import Target, run
from benchmarks.attention.cases import Size
from tests.learner.ranks import run_ranks


def test_all_ways_say_the_same_and_leave_a_table(tmp_path: Path) -> None:
    run_ranks(run, Size(hidden=32, layers=2, vocabulary=97, longest=64, groups=2), 1, tmp_path, ranks=1)
    report = json.loads((tmp_path / "attention.json").read_text(encoding="utf-8"))
    ways = {(row["case"], row["way"]) for row in report["rows"]}
    assert ("lengths 16 to 1,024", "TRL") in ways
    assert ("prompts of 512, responses of 64 to 256", "by span, prompts shared") in ways
    for row in report["rows"]:
        assert row["logp_gap_max"] < 1e-4, row
        assert row["way"] == "TRL" or row["grad_norm_gap"] < 1e-4, row
    assert all({"found", "met"} <= target.keys() for target in report["targets"])


def test_a_target_is_a_floor_or_a_ceiling() -> None:
    assert Target("case", "slow", "fast", 2.0).is_met(2.1)
    assert not Target("case", "slow", "fast", 2.0).is_met(1.9)
    assert Target("case", "slow", "fast", 1.15, at_most=True).is_met(1.1)
    assert not Target("case", "slow", "fast", 1.15, at_most=True).is_met(1.2)
