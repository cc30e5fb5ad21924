"""A start of the learner that finds a step in hand counts it, unless the one before was asked to stop."""

from pathlib import Path

import pytest

from learner.control.suspicion import EveryStepKills
from learner.intake.step_guard import StepGuard
from services.run.step_in_hand import read_step_in_hand


def nothing(_: int) -> bool:
    return False


def killed_in(path: Path, *groups: int) -> None:
    """One start that is killed in a step with these groups."""
    guard = StepGuard(path)
    guard.begin(1, groups)
    guard.close()


def test_a_step_is_in_the_file_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    guard = StepGuard(path)
    guard.begin(7, [1, 2])
    assert (read_step_in_hand(path).step, read_step_in_hand(path).groups) == (7, (1, 2))
    guard.end()
    assert read_step_in_hand(path).groups == ()
    guard.close()


def test_the_groups_of_two_deaths_are_tried_in_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "step.json"
    for _ in range(2):
        killed_in(path, 4, 5, 6)
    guard = StepGuard(path)
    assert guard.trial(nothing) == {4, 5}
    assert [guard.wants(group) for group in (3, 4, 6)] == [False, True, False]
    assert (
        "the learner was killed in step 1, which trained on 3 groups (4, 5, 6); 3 groups are suspected" in caplog.text
    )
    assert guard.trial({4, 5}.__contains__) == {6}
    assert guard.trial({6}.__contains__) is None
    assert guard.wants(3)
    guard.close()


def test_a_group_that_kills_alone_is_given_up_with_a_cause(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    for groups in ((4, 5), (4, 5), (4,)):
        killed_in(path, *groups)
    guard = StepGuard(path)
    guard.begin(1, [5])
    guard.end()
    guard.close()
    assert not guard.convicted
    killed_in(path, 4)
    guard = StepGuard(path)
    assert "killed the learner" in guard.convicted[4]
    assert not guard.wants(4)
    guard.gave_up(4)
    guard.close()
    assert not StepGuard(path).convicted


def test_who_was_asked_to_stop_suspects_nobody(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    for _ in range(3):
        guard = StepGuard(path)
        guard.begin(1, [4, 5])
        guard.excuse()
        guard.close()
    asked_before = StepGuard(path)
    asked_before.excuse()
    asked_before.begin(1, [4, 5])
    asked_before.close()
    guard = StepGuard(path)
    assert guard.trial(nothing) is None
    guard.close()


@pytest.mark.parametrize("asked_first", [True, False])
def test_a_step_that_failed_counts_although_the_learner_is_asked_to_stop(tmp_path: Path, asked_first: bool) -> None:
    """A launcher asks all other ranks to stop once one of them has died."""
    path = tmp_path / "step.json"
    for _ in range(2):
        guard = StepGuard(path)
        guard.begin(1, [4, 5])
        if asked_first:
            guard.excuse()
        guard.fail()
        if not asked_first:
            guard.excuse()
        guard.close()
    guard = StepGuard(path)
    assert guard.trial(nothing) == {4}
    guard.close()


def test_a_learner_that_every_step_kills_says_so_once_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    for groups in ((4, 5), (4, 5), (4,), (5,), (4,)):
        killed_in(path, *groups)
    killed_in(path, 5)
    with pytest.raises(EveryStepKills, match="killed in 4 steps"):
        StepGuard(path)
    StepGuard(path).close()


def test_a_file_that_cannot_be_read_is_no_reason_not_to_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "step.json"
    path.write_text("{")
    StepGuard(path).close()
    assert "nobody is suspected" in caplog.text
