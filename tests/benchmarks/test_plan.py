"""The formulas of `ratchet plan` against the real engine, once and small; all cases: `python -m benchmarks.plan`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.plan import GIVE_BACK, MARK, Case, row, table

ROOT = Path(__file__).parents[2]
CASE = Case("vocabulary, 19 M", 1, row_tokens=32)
PHASES = {"scoring": 200, "backward": 400, "step": 900, "snapshot": 100}


def test_the_peak_of_a_learner_is_what_the_plan_says() -> None:
    """In a process of its own, because what it measures is the memory of the process."""
    program = f"from benchmarks.plan import Case, child; child([{CASE!r}])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | GIVE_BACK,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert row(json.loads(line.removeprefix(MARK)))["whole"] == pytest.approx(1.0, abs=0.1)


def test_a_row_compares_the_fullest_phases_and_counts_reduction_to_the_step() -> None:
    found = row({"case": "one", "planned": {**PHASES, "reduction": 990}, "measured": PHASES})
    assert (found["whole"], found["ratios"]["step"], found["ratios"]["scoring"]) == (1.1, 1.1, 1.0)
    assert "| one | 0 | **1.10** | 1.00 | 1.00 | 1.10 | 1.00 |" in table([found])
