"""A recorded step comes to the same when it is taken again, and is compared with itself under other settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from learner.recorded_steps import RecordedStep, RecordedSteps, read_recorded, recorded
from learner.replay import cosine, place_of
from learner.replay_command import altered_settings
from services.errors import InputError
from services.run.checkpoint_files import write_state
from services.run.folder import RunFolder
from tests.learner import replay_trial
from tests.learner.ranks import run_ranks
from tests.learner.tiny import write_tiny_model

COUNTERFACTUAL = "two after it, with another lag and objective"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("replay")
    run_ranks(replay_trial.main, folder, write_tiny_model(folder / "model"), ranks=1)
    seen: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return seen


@pytest.mark.parametrize("place", ["after the checkpoint", COUNTERFACTUAL, "from the beginning"])
def test_a_recorded_step_comes_to_the_same_bits(found: dict[str, Any], place: str) -> None:
    assert (found[place]["same"], found[place]["exact"], found[place]["differs"]) == (True, True, [])
    assert found[place]["figures"]["loss"]["replayed"] != 0
    assert found[place]["probe_gap_nats"] == 0


def test_a_step_that_is_not_the_recorded_one_is_told_apart(found: dict[str, Any]) -> None:
    assert not found["another step"]["same"]
    assert {"loss", "probe_gap_nats"} <= set(found["another step"]["differs"])


def test_a_setting_that_leaves_the_gradient_alone_has_a_cosine_of_one(found: dict[str, Any]) -> None:
    altered = found["after the checkpoint"]["altered"]
    assert altered["gradient_cosine"] == pytest.approx(1, abs=1e-9)
    assert altered["lr_factor"] == 1 > found["after the checkpoint"]["figures"]["lr_factor"]["replayed"]


def test_another_objective_and_lag_are_seen_in_loss_and_gradient(found: dict[str, Any]) -> None:
    altered, figures = found[COUNTERFACTUAL]["altered"], found[COUNTERFACTUAL]["figures"]
    assert altered["tokens"] < figures["tokens"]["replayed"]  # those of version 0 are more than two steps behind
    assert altered["loss"] != figures["loss"]["replayed"]
    assert -1 < altered["gradient_cosine"] < 0.9999


def kept(run: RunFolder, *steps: int) -> None:
    for step in steps:
        RecordedSteps(run.replay, keep=99).put(
            RecordedStep(policy_version=step - 1, groups=[], learning_rate=0.1, full_ess_ratio=None)
        )


def checkpoint(run: RunFolder, version: int) -> Path:
    folder = run.checkpoints / f"step-{version:08d}"
    folder.mkdir(parents=True)
    write_state(folder, {})
    return folder


def test_a_replay_begins_at_the_newest_checkpoint_below_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    kept(run, 1, 2, 5, 6, 7)
    five = checkpoint(run, 4), checkpoint(run, 6)
    assert (place_of(run, 7).checkpoint, len(place_of(run, 7).steps)) == (five[1], 1)
    assert (place_of(run, 6).checkpoint, len(place_of(run, 6).steps)) == (five[0], 2)
    assert (place_of(run, 2).checkpoint, len(place_of(run, 2).steps)) == (None, 2)


def test_a_damaged_checkpoint_is_not_begun_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    kept(run, 5, 6, 7)
    older = checkpoint(run, 4)
    (checkpoint(run, 6) / "state.json").write_text("{")
    assert (place_of(run, 7).checkpoint, len(place_of(run, 7).steps)) == (older, 3)


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (3, r"step 3 of .* its groups were not kept in .*replay\. Steps that can: 1-2, 5, 7\. A run keeps"),
        (8, r"step 8 of .* its groups were not kept"),
        (0, r"step 0 of .* its groups were not kept"),
        (10, r"step 10 of .* there is no whole checkpoint before it from which every step up to it was kept\. Steps"),
    ],
)
def test_a_step_that_cannot_be_replayed_is_refused_with_those_that_can(
    tmp_path: Path, step: int, complaint: str
) -> None:
    run = RunFolder(tmp_path)
    kept(run, 1, 2, 5, 7, 10)
    checkpoint(run, 4)
    checkpoint(run, 6)
    with pytest.raises(InputError, match=complaint):
        place_of(run, step)


def test_where_nothing_was_kept_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No step can\. A run keeps .*learner\.checkpoint\.replay_steps"):
        place_of(RunFolder(tmp_path), 1)


def test_the_newest_steps_are_kept_and_those_of_a_history_that_was_left_are_forgotten(tmp_path: Path) -> None:
    steps = RecordedSteps(tmp_path, keep=3)
    for version in range(5):
        steps.put(RecordedStep(policy_version=version, groups=[], learning_rate=0.1, full_ess_ratio=None))
    assert list(recorded(tmp_path)) == [3, 4, 5]
    steps.forget_after(3)
    assert list(recorded(tmp_path)) == [3]


def test_a_damaged_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "step-00000003.msgpack"
    path.write_bytes(b"\x81")
    with pytest.raises(InputError, match=r"step-00000003\.msgpack cannot be read: .*replay another step"):
        read_recorded(path)


def test_settings_of_other_rooms_change_nothing_of_a_step(tmp_path: Path) -> None:
    config = replay_trial.a_run(tmp_path, tmp_path / "model")
    with pytest.raises(
        InputError, match=r"--set rollout\.replicas=2: a step is replayed with other settings of \[learner\]"
    ):
        altered_settings(RunFolder(config.folder), ["rollout.replicas=2"])


def test_the_cosine_of_gradients() -> None:
    a, b = (
        {"x": torch.tensor([1.0, 0.0]), "y": torch.tensor([1.0])},
        {"x": torch.tensor([0.0, 1.0]), "y": torch.tensor([1.0])},
    )
    assert cosine(a, b) == pytest.approx(0.5)
    assert cosine(a, {}) is None
