"""The learner as two ranks, as `ratchet up` starts it: torchrun between the supervisor and the ranks."""

import json
from pathlib import Path

from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from tests.system.conftest import Ratchet

STEPS = 3


def test_two_ranks_learn_as_one(example: Path, ratchet: Ratchet, tmp_path: Path) -> None:
    overrides = [
        f"runs_folder={tmp_path}",
        "learner.ranks=2",
        f"learner.steps={STEPS}",
        "learner.groups_per_step=4",
        "learner.checkpoint.every_steps=2",
        "evaluation.every_steps=1000",
        "evaluation.max_prompts=8",
    ]
    options = [part for override in overrides for part in ("--set", override)]
    done = ratchet("up", "examples/addition/addition.toml", *options, within_s=400)
    assert done.returncode == 0, done.stdout
    folder = RunFolder(tmp_path / "addition")
    steps = read_json_lines(folder.steps)
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert {row["attempt"] for row in steps} == {1}  # no rank fell over and was started again
    groups = json.loads(folder.summary.read_text(encoding="utf-8"))["groups"]
    assert groups["trained"] == 4 * STEPS
    assert groups["issued"] == groups["trained"] + sum(groups["dropped"].values()) + groups["outstanding"]
