"""The learner says one line of the log for each step."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from learner.batch.step_batch import assemble
from learner.intake.collector import Sampled
from learner.ranks import TakenStep
from learner.records import NOTHING_COUNTED, Records
from learner.step.report import StepReport
from learner.step.report import report as of_batch
from services.config.learner import LearnerConfig
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines

SETTINGS = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1})


def report(**given: Any) -> StepReport:
    return dataclasses.replace(of_batch(assemble([], 0, SETTINGS), None), **given)


def logged(caplog: pytest.LogCaptureFixture, folder: Path, taken: StepReport) -> list[str]:
    records = Records(RunFolder(folder), Sampled(), NOTHING_COUNTED, 1, policy_version=0)
    # A service's logger has a level of its own; here it has what the tests before left it.
    with caplog.at_level(logging.INFO, logger="ratchet.learner"):
        records.step(
            12,
            TakenStep(taken, {1: taken.tokens}),
            groups=[],
            counts={},
            reference_version=0,
            lag_window=1,
            waited_s=0.25,
            seconds=1.5,
        )
    records.close()
    return [record.getMessage() for record in caplog.records]


def test_a_step_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    taken = report(pass_rate=0.59, mean_reward=0.5, mean_lag_steps=1.05, ess_ratio=0.98, tokens=1234)
    assert logged(caplog, tmp_path, taken) == [
        "step 12  pass rate 0.59  reward 0.500  lag 1.05  ESS 0.98  "
        "1,234 tokens in 1.50 s after 0.25 s of waiting  weights version 12"
    ]
    assert [row["step"] for row in read_json_lines(RunFolder(tmp_path).steps)] == [12]


def test_a_step_that_changed_nothing_says_why(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    [line] = logged(caplog, tmp_path, report(skipped="non_finite_loss", tokens=1234))
    assert "0 tokens in" in line
    assert line.endswith("not trained on: non_finite_loss")


def test_a_step_says_when_many_of_its_responses_were_cut(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    [line] = logged(caplog, tmp_path, report(cut_fraction=0.75))
    assert line.endswith("0.75 of the responses cut by max_tokens")


def test_a_step_in_which_every_response_was_cut_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    records = Records(RunFolder(tmp_path), Sampled(), NOTHING_COUNTED, 1, policy_version=0)
    for step in (1, 2):
        records.step(
            step,
            TakenStep(report(cut_fraction=1.0), {}),
            groups=[],
            counts={},
            reference_version=0,
            lag_window=1,
            waited_s=0.0,
            seconds=0.0,
        )
    records.close()
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("every response of step 1 was cut by rollout.sampling.max_tokens")
