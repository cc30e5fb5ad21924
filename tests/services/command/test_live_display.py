"""The display follows what the services write, also where a crash cut it off."""

import io
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from services.command import live_display
from services.command.live_display import LiveDisplay
from services.command.shown import duration, sparkline
from services.run.addresses import announce_address
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines, read_json_lines
from services.run.tail import Tail
from services.run.waiting import Waiting, write_waiting
from tests.services.command.running import run

NO_GROUPS = Waiting(
    step=1,
    usable=0,
    needed=4,
    unusable="12 equal rewards (every reward was 0)",
    outstanding=5,
    confirmed=True,
    depths={"prompts": 4, "trajectories": 1, "scored": 0},
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"confirmed": False}, "no prompts are issued: the replicas have not confirmed the weights"),
        ({"outstanding": 0}, "none is outstanding"),
        ({"unusable": ""}, "0 of 4 there; 5 outstanding (4 to be sampled, 1 to be scored)"),
    ],
)
def test_why_no_group_comes_is_said(change: dict[str, Any], said: str) -> None:
    assert msgspec.structs.replace(NO_GROUPS, **change).said().endswith(said)


def test_a_step_that_does_not_come_is_said_with_its_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_display, "SLOW_S", -1.0)
    monkeypatch.setattr(live_display, "LINE_EVERY_S", -1.0)
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    said = io.StringIO()
    with LiveDisplay(config, Console(file=said)) as display:
        with JsonLines(folder.steps) as lines:
            lines.write(step=3, attempt=1, pass_rate=0.5, ess_ratio=0.9, mean_lag_steps=1.25, sampled_trajectories=32)
        write_waiting(folder.waiting, NO_GROUPS)  # of a step that was taken
        display.tick()
        write_waiting(folder.waiting, msgspec.structs.replace(NO_GROUPS, step=4))
        display.tick()
    first, second = said.getvalue().splitlines()
    assert "step 4" not in first
    assert "waiting for step 4: 0 of 4 there; nothing to train on in the others: 12 equal rewards" in second


def test_a_line_that_a_crash_cut_off_does_not_end_the_display(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    tail = Tail(path)
    path.write_text('{"step": 1}\n{"step": 2, "pass_r', encoding="utf-8")
    assert tail.rows() == [{"step": 1}]
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 2}\n{"step": 3}\n')  # the next start, in the same line
    assert tail.rows() == [{"step": 3}]


def test_the_next_start_begins_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    tail = Tail(path)
    path.write_text('{"step": 1}\n{"step": 2, "pass_r', encoding="utf-8")
    for step in (2, 3):  # nothing is cut off before the second of these starts
        lines = JsonLines(path)
        lines.write(step=step)
        lines.close()
    assert [row["step"] for row in tail.rows()] == [1, 2, 3]
    assert [row["step"] for row in read_json_lines(path)] == [1, 2, 3]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_it_says_what_the_run_waits_for_and_then_where_training_stands(tmp_path: Path) -> None:
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    said = io.StringIO()
    groups = {"trained": 4, "dropped": {}, "dead": 0, "outstanding": 5}
    with LiveDisplay(config, Console(file=said)) as display:
        display.tick()
        announce_address(folder.services, "learner", "http://127.0.0.1:1")
        display.tick()
        announce_address(folder.services, "rollout-0", "http://127.0.0.1:2")
        display.tick()
        with JsonLines(folder.evaluations) as lines:
            lines.write(policy_version=0, attempt=1, k=4, avg_at_k=0.25, pass_at_k=0.5)
        display.tick()
        write_waiting(folder.waiting, NO_GROUPS)
        display.tick()
        with JsonLines(folder.steps) as lines:
            lines.write(
                step=1,
                attempt=1,
                pass_rate=0.5,
                ess_ratio=0.9,
                mean_lag_steps=1.25,
                groups=groups,
                sampled_trajectories=32,
            )
        display.tick()
        display.tick()  # nothing new: no line
    told = [line.strip().partition("  ")[2] for line in said.getvalue().splitlines()]
    assert told == [
        "waiting for the learner (loading the model)",
        "waiting for the first rollout replica (starting its engine; half a minute on CPU)",
        "waiting for the first weights",
        "waiting for the first step",
        f"waiting for the groups of step 1: {NO_GROUPS.said()}",
        f"step 1/{config.learner.steps}  pass rate 0.50  lag 1.25  ESS 0.90  held-out 0.250 @0",
    ]


def test_a_sparkline_averages_what_does_not_fit() -> None:
    assert sparkline([0.0, 1.0], 2) == " █"
    assert sparkline([0.0, 1.0, 1.0, 1.0], 2) == "▄█"
    assert sparkline([], 8) == ""


@pytest.mark.parametrize("width", [30, 100])
def test_the_panel_fits_the_terminal_and_says_how_much_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(live_display, "REDRAW_EVERY_S", -1.0)
    config = run(tmp_path, "learner.steps=60")
    folder = RunFolder(config.folder)
    said = io.StringIO()
    groups = {"trained": 4, "dropped": {}, "dead": 0, "outstanding": 2}
    with LiveDisplay(config, Console(file=said, force_terminal=True, width=width, no_color=True)) as display:
        folder.path.mkdir(parents=True, exist_ok=True)
        rows = [
            {"step": step, "at_unix_s": 1000.0 + 3 * step, "attempt": 1, "pass_rate": 0.5, "ess_ratio": 0.9,
             "mean_lag_steps": 1.0, "max_lag_steps": 2, "lr_factor": 1.0, "groups": groups, "sampled_trajectories": 32}
            for step in (8, 9, 10)
        ]  # fmt: skip
        folder.steps.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        display.tick()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.getvalue())
    assert max(map(len, re.split(r"[\r\n]", shown))) <= width
    if width == 100:
        assert "step 10 of 60, 0 s, about 2 min left" in shown  # 50 steps of 3 s each
        assert "pass rate" in shown


def test_durations_are_told_in_the_unit_that_fits() -> None:
    assert [duration(seconds) for seconds in (42.4, 150, 12_000)] == ["42 s", "2 min", "3 h 20 min"]
