"""A group that kills the learner ends in `dead`; every other one is trained on, once."""

from collections.abc import Callable
from typing import Any

import pytest

from learner.ranks import Team
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.settled import read_settled
from services.run.step_in_hand import StepInHand, read_step_in_hand
from tests.learner.small_run import SmallRun


class Killed(BaseException):
    """Stands for the end of the process."""


def until_done(run: SmallRun, dies: Callable[[set[int]], bool], monkeypatch: pytest.MonkeyPatch) -> int:
    """Start the learner again until the run is done; how often it was killed. dies: whether a step with these groups kills it."""
    step = Team.step

    def dying(team: Team, groups: Any, *rest: Any, **options: Any) -> Any:
        if dies({group.prompt.sequence_number for group in groups}):
            raise Killed
        return step(team, groups, *rest, **options)

    monkeypatch.setattr(Team, "step", dying)
    for killed in range(20):
        try:
            start = run.start()
            assert start.run()
        except Killed:
            start.close()
            continue
        return killed
    raise AssertionError("it is killed without end")


def test_a_group_that_kills_the_learner_goes_to_dead_and_no_other(
    small_run: Callable[..., SmallRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run("learner.groups_per_step=4", "learner.steps=6")
    assert until_done(run, lambda groups: 5 in groups, monkeypatch) == 2 + 2 + 1
    folder = RunFolder(run.config.folder)
    record = read_settled(folder.settled)
    assert (record.twice, record.unrecorded) == ([], [])
    assert record.groups[5].what == "dead"
    assert record.groups[5].why.startswith(
        "scored: it killed the learner: 2 steps with it among others and 2 with it alone"
    )
    assert {record.groups[number].what for number in (4, 6, 7)} == {"trained"}
    others = {(one.what, one.why) for number, one in record.groups.items() if number != 5}
    assert others <= {("trained", ""), ("dropped", "stale")}  # by the age rule: trials are steps, too
    consumed = [number for row in read_json_lines(folder.steps)[-6:] for number in row["consumed_groups"]]
    assert len(consumed) == len(set(consumed))
    assert read_step_in_hand(folder.step_in_hand).found_out == StepInHand().found_out


def test_a_step_that_is_too_large_is_taken_in_parts(
    small_run: Callable[..., SmallRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run("learner.groups_per_step=4", "learner.steps=4")
    assert until_done(run, lambda groups: {4, 5, 6, 7} <= groups, monkeypatch) == 2
    record = read_settled(RunFolder(run.config.folder).settled)
    assert {record.groups[number].what for number in range(4, 8)} == {"trained"}


def test_two_kills_at_different_steps_hold_nobody_up(
    small_run: Callable[..., SmallRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run("learner.groups_per_step=4", "learner.steps=4")
    kills = iter([False, True, True])  # in the second step of the first start, then in the first of the second
    assert until_done(run, lambda groups: next(kills, False), monkeypatch) == 2
    folder = RunFolder(run.config.folder)
    assert [row["consumed_groups"] for row in read_json_lines(folder.steps)][-4:] == [
        list(range(4 * at, 4 * at + 4)) for at in range(4)
    ]
    assert run.dead.depth().waiting == 0
