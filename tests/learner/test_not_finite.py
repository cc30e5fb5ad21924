"""A step whose figures are not finite is written as JSON that any reader takes, and every reader of ours copes with it."""

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from learner.batch.step_batch import assemble
from learner.evaluation import Evaluation
from learner.intake.collector import Sampled
from learner.ranks import TakenStep
from learner.records import NOTHING_COUNTED, Records
from learner.step.report import StepReport, report
from services.command import live_display
from services.command.live_display import LiveDisplay
from services.command.report import draw, show
from services.command.run_processes import write_settings
from services.command.status import describe
from services.config import RunConfig
from services.config.learner import LearnerConfig
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.summary import newest, summarize, write
from tests.learner.tiny import scored_group
from tests.services.run.test_json_text import strictly

GROUPS = [scored_group(i, rewards=[1.0, 0.0, 0.0]) for i in range(2)]
COUNTS = {"trained": 2, "dropped": {"zero_variance": 1}, "dead": 0, "outstanding": 4, "issued": 7}
SETTINGS = LearnerConfig.model_validate({"steps": 4, "groups_per_step": 2})


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "odd",
            "device": "cpu",
            "runs_folder": str(tmp_path),
            "model": {"path": "nobody/nothing", "max_length": 8},
            "prompts": {"source": {"type": "jsonl", "path": "none.jsonl"}},
            "rollout": {"sampling": {"max_tokens": 4}},
            "learner": {"steps": 4, "groups_per_step": 2},
            "weights": {"type": "gloo"},
        }
    )


def step_of(value: float) -> StepReport:
    """A step in which every figure that may be a fraction has this value."""
    taken = report(assemble(GROUPS, 0, SETTINGS), None)
    floats = {name for name, found in dataclasses.asdict(taken).items() if isinstance(found, float)}
    assert {"pass_rate", "ess_ratio", "mean_lag_steps", "loss", "lr_factor"} <= floats
    return dataclasses.replace(taken, skipped="non_finite_loss", **dict.fromkeys(floats, value))  # type: ignore[arg-type]


def write_run(folder: RunFolder, figures: list[float]) -> None:
    """A step for each of the figures, and an evaluation of which nothing came back."""
    records = Records(folder, Sampled(), NOTHING_COUNTED, attempt=1, policy_version=0)
    for step, value in enumerate(figures, start=1):
        records.step(
            step,
            TakenStep(step_of(value), {0: 3}),
            groups=GROUPS,
            counts=COUNTS,
            reference_version=0,
            lag_window=2,
            waited_s=0.5,
            seconds=0.25,
        )
    records.evaluation(Evaluation(policy_version=0, **_nothing_came_back()))
    records.close()


def _nothing_came_back() -> dict[str, Any]:
    names = {
        field.name: field.type
        for field in dataclasses.fields(Evaluation)
        if field.name not in ("policy_version", "sources")
    }
    return {name: math.nan if "float" in str(kind) else 0 for name, kind in names.items()}


def test_every_line_is_json_and_says_what_was_infinite(run: RunConfig) -> None:
    folder = RunFolder(run.folder)
    write_run(folder, [math.nan, math.inf, -math.inf, 0.5])
    lines = [strictly(line) for line in folder.steps.read_text(encoding="utf-8").splitlines()]
    assert [line["loss"] for line in lines] == [None, None, None, 0.5]  # type: ignore[index]
    assert [line.get("infinite", {}).get("loss") for line in lines] == [None, "inf", "-inf", None]  # type: ignore[attr-defined]
    assert all(line["skipped"] == "non_finite_loss" for line in lines)  # type: ignore[index]
    (evaluation,) = map(strictly, folder.evaluations.read_text(encoding="utf-8").splitlines())
    assert evaluation["avg_at_k"] is None  # type: ignore[index]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_live_display_shows_such_a_step(run: RunConfig, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_display, "REDRAW_EVERY_S", -1.0)
    monkeypatch.setattr(live_display, "LINE_EVERY_S", -1.0)
    console = Console(width=120, record=True, force_terminal=is_terminal, file=io.StringIO())
    with LiveDisplay(run, console) as display:
        write_run(RunFolder(run.folder), [0.5, math.nan])
        display.tick()
    assert "pass rate" in console.export_text()


def test_status_report_summary_and_picture_show_such_a_run(run: RunConfig) -> None:
    folder = RunFolder(run.folder)
    folder.path.mkdir(parents=True)
    write_settings(run, folder)
    write_run(folder, [math.inf, math.nan])
    said = describe(folder.path)
    assert "step 2 of 4: pass rate -, ESS ratio -, lag - steps" in said
    assert "held-out at version 0: avg@0 -, pass@0 -" in said
    counts = {"wall_seconds": 2.0, "sampled_tokens": 5, "sampled_trajectories": 2, "trained_tokens": 1}
    write(folder, summarize(folder, COUNTS, counts, []))
    summary = strictly(folder.summary.read_text(encoding="utf-8"))
    assert summary["accuracy_before"] is None  # type: ignore[index]
    assert summary["ess_ratio"] == {"mean": None, "min": None}  # type: ignore[index]
    console = Console(width=100, record=True)
    show(folder, json.loads(folder.summary.read_text(encoding="utf-8")), console)
    assert "odd: 2 steps in 2 s" in console.export_text()
    draw(folder)
    assert folder.picture.stat().st_size > 1000


def test_tensorboard_has_the_step_and_a_resumed_run_reads_it(run: RunConfig) -> None:
    folder = RunFolder(run.folder)
    write_run(folder, [0.5, math.nan])
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    first, second = events.Scalars("step/loss")
    assert first.value == 0.5
    assert math.isnan(second.value)
    assert [row["step"] for row in newest(read_json_lines(folder.steps), "step")] == [1, 2]
