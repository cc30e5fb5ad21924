"""Calibration of the full ESS ratio, and what is asked of admission meanwhile."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.batch.step_batch import assemble
from learner.control.ess import EssControl
from learner.objective.ess import learning_rate_factor
from learner.step.learner_step import learner_step
from learner.step.report import StepReport, report
from services.config.control import EssConfig
from services.config.learner import LearnerConfig
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import settings
from tests.learner.tiny import scored_group


def control(**changes: object) -> EssControl:
    return EssControl(LearnerConfig.model_validate({"steps": 9, "groups_per_step": 1, "max_lag": 8, **changes}))


def step(ess_ratio: float, *, lag: int = 0, skipped: str | None = None) -> StepReport:
    nothing = report(assemble([], 0, settings("grpo")), skipped, ess_ratio=ess_ratio)  # type: ignore[arg-type]
    return dataclasses.replace(nothing, max_lag_steps=lag, mean_lag_steps=float(lag))


def test_without_calibration_the_settings_hold_from_the_first_step() -> None:
    watched = control(ess={"full_ratio": 0.5})
    assert (watched.steps_ahead, watched.full_ratio) == (8, 0.5)
    watched.observe(step(0.1))
    assert (watched.steps_ahead, watched.full_ratio) == (8, 0.5)


@given(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3))
def test_the_first_steps_are_synchronous_and_whole_and_their_median_is_the_measure(ratios: list[float]) -> None:
    watched = control(ess={"calibrate_steps": 3})
    for ratio in ratios:
        assert (watched.steps_ahead, watched.full_ratio) == (0, 0.0)
        watched.observe(step(ratio))
    assert (watched.steps_ahead, watched.full_ratio) == (8, sorted(ratios)[1])
    watched.observe(step(0.001, lag=8))
    assert watched.full_ratio == sorted(ratios)[1]


def test_steps_off_policy_or_without_a_number_do_not_calibrate() -> None:
    watched = control(ess={"calibrate_steps": 1})
    for one in (step(0.5, lag=1), step(math.nan), step(math.nan, skipped="empty")):
        watched.observe(one)
        assert watched.steps_ahead == 0
    watched.observe(step(0.5))
    assert (watched.steps_ahead, watched.full_ratio) == (8, 0.5)


def test_tokens_of_a_version_that_a_restart_took_back_do_not_calibrate() -> None:
    """Their lag is negative: they were sampled by weights that are no more. Next to them there may be fresh ones."""
    watched = control(ess={"calibrate_steps": 1})
    watched.observe(step(0.9, lag=-1))
    assert watched.steps_ahead == 0
    watched.observe(dataclasses.replace(step(0.9), mean_lag_steps=-0.5))
    assert watched.steps_ahead == 0


def test_an_ess_rule_that_is_off_measures_nothing() -> None:
    watched = control(ess={"enabled": False, "calibrate_steps": 3})
    assert (watched.steps_ahead, watched.full_ratio) == (8, 1.0)


def test_the_loop_narrows_what_is_issued_and_a_checkpoint_keeps_it() -> None:
    config = LearnerConfig.model_validate(
        {"steps": 9, "groups_per_step": 1, "max_lag": 8, "lag_control": {"enabled": True, "smoothing_steps": 2}}
    )
    watched = EssControl(config)
    for _ in range(2):
        watched.observe(step(0.1, lag=8))
    assert watched.steps_ahead == 6
    resumed = EssControl.from_dict(config, json.loads(json.dumps(watched.to_dict())))
    for _ in range(40):
        watched.observe(step(math.nan, skipped="non_finite_ess"))
        resumed.observe(step(math.nan, skipped="non_finite_ess"))
        assert resumed.to_dict() == watched.to_dict()
    assert watched.steps_ahead < 6


def test_a_max_lag_that_was_changed_since_the_checkpoint_holds() -> None:
    def resumed(before: int, after: int, **control_settings: object) -> int:
        saved = json.loads(json.dumps(control(max_lag=before, lag_control=control_settings).to_dict()))
        config = {"steps": 9, "groups_per_step": 1, "max_lag": after, "lag_control": control_settings}
        return EssControl.from_dict(LearnerConfig.model_validate(config), saved).steps_ahead

    assert (resumed(8, 2), resumed(2, 8), resumed(8, 8)) == (2, 8, 8)
    assert (resumed(8, 2, enabled=True), resumed(2, 8, enabled=True)) == (2, 2)  # the loop widens it by itself


def test_the_window_is_not_narrowed_for_what_numerics_alone_leave_of_the_ess() -> None:
    closed = {"enabled": True, "smoothing_steps": 1, "target_ess_ratio": 0.6}
    watched = control(lag_control=closed, ess={"full_ratio": 0.45})
    for _ in range(30):
        watched.observe(step(0.44, lag=8))
    assert watched.steps_ahead == 8
    for _ in range(30):
        watched.observe(step(0.2, lag=8))
    assert watched.steps_ahead < 8


def test_a_step_skipped_for_its_reference_says_nothing_of_the_ess() -> None:
    watched = control(lag_control={"enabled": True, "smoothing_steps": 1})
    watched.observe(step(math.nan, lag=8, skipped="non_finite_reference"))
    assert watched.steps_ahead == 8


def test_the_linear_rule_has_no_root_and_while_measuring_steps_are_whole() -> None:
    linear = EssConfig(rule="linear", floor=0.1)
    assert learning_rate_factor(0.25, linear) == 0.25
    assert learning_rate_factor(0.01, linear) == 0.1
    assert learning_rate_factor(0.25, linear, 0.5) == 0.5
    assert learning_rate_factor(0.25, EssConfig(), 1.0) == 0.5
    assert learning_rate_factor(0.01, linear, 0.0) == 1.0


def test_a_step_is_taken_by_the_ratio_that_was_measured() -> None:
    config, engine = settings("owpo", advantage={"baseline": "mean"}), BigramEngine()
    batch = assemble([scored_group(i, rewards=[1.0, 0.0]) for i in range(3)], 0, config)
    whole = learner_step(engine, batch, config, learning_rate=0.4, full_ess_ratio=0.0)
    assert (whole.lr_factor, whole.learning_rate) == (1.0, 0.4)
    assert whole.ess_ratio < 0.9
    scaled = learner_step(BigramEngine(), batch, config, learning_rate=0.4, full_ess_ratio=0.9)
    assert scaled.lr_factor == pytest.approx(math.sqrt(scaled.ess_ratio / 0.9))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ess": {"full_ratio": 0.5, "calibrate_steps": 3}}, "leave one of them out"),
        ({"lag_control": {"enabled": True, "least": 8}}, "nothing to control"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        control(**changes)
