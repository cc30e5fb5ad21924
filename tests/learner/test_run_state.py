"""What a run remembers from step to step, and across a restart."""

import dataclasses
import json

import pytest

from learner.batch.step_batch import assemble
from learner.run_state import RunState
from learner.step.report import StepReport, report
from services.config.learner import LearnerConfig
from services.errors import RatchetError


def settings(**changes: object) -> LearnerConfig:
    reference = {"every_steps": 2, "smoothing_steps": 1, "roll_back": 0.1}
    given = {"steps": 9, "groups_per_step": 1, "max_lag": 8, "max_skipped_steps": 3, "reference": reference, **changes}
    return LearnerConfig.model_validate(given)


def step(pass_rate: float = 0.5, *, skipped: str | None = None) -> StepReport:
    nothing = report(assemble([], 0, settings()), skipped, ess_ratio=0.9)  # type: ignore[arg-type]
    return dataclasses.replace(nothing, pass_rate=pass_rate, optimizer_steps=0 if skipped else 1)


def test_every_step_makes_a_version_and_says_what_to_do_with_the_reference() -> None:
    state = RunState.begin(settings())
    assert [state.count_step(step(rate)) for rate in (0.5, 0.5, 0.0, 0.0)] == [
        "not_due",
        "swap",
        "roll_back",
        "pass_rate_fell",
    ]
    assert state.policy_version == 4
    assert state.ratchet.reference_version == 0


def test_a_skipped_step_and_a_reference_that_is_not_a_ratchet_move_nothing() -> None:
    state = RunState.begin(settings())
    assert [state.count_step(step(skipped="empty")) for _ in range(2)] == ["not_due"] * 2
    assert state.ratchet.optimizer_steps == 0
    fixed = RunState.begin(settings(reference={"type": "fixed"}))
    assert {fixed.count_step(step()) for _ in range(8)} == {"not_due"}


def test_only_skipped_steps_in_a_row_end_the_run() -> None:
    state = RunState.begin(settings())
    for skipped in ("empty", "empty", None, "empty", "empty"):
        state.count_step(step(skipped=skipped))
    with pytest.raises(
        RatchetError, match=r"3 steps in a row changed nothing, the last because of empty; .* version 5"
    ):
        state.count_step(step(skipped="empty"))


def test_saved_and_resumed_is_uninterrupted() -> None:
    config = settings(lag_control={"enabled": True, "smoothing_steps": 2})
    state = RunState.begin(config)
    state.issued = 12
    state.evaluated_version = 0
    for rate in (0.5, 0.5, 0.6):
        state.count_step(step(rate))
    resumed = RunState.from_dict(config, json.loads(json.dumps(state.to_dict())))
    assert (resumed.policy_version, resumed.issued, resumed.evaluated_version) == (3, 12, 0)
    for rate in (0.6, 0.0, 0.0):
        assert resumed.count_step(step(rate)) == state.count_step(step(rate))
        assert resumed.to_dict() == state.to_dict()


def test_it_is_complete_after_the_last_step() -> None:
    state = RunState.begin(settings(steps=2))
    assert [(state.count_step(step()), state.is_complete)[1] for _ in range(2)] == [False, True]
