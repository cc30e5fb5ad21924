"""Reports and comparisons: what differs between runs, what they came to, and pages that need nothing else."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from services import entry, library_logs
from services.command import cli, compare, report
from services.command.run_processes import write_settings
from services.errors import InputError
from services.run.folder import RunFolder
from services.run.history import read_history
from services.run.json_lines import JsonLines
from tests.services.command.running import run


def made(tmp_path: Path, name: str, rates: list[float], *overrides: str) -> Path:
    config = run(tmp_path, f'name="{name}"', *overrides)
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    write_settings(config, folder)
    groups = {"issued": 9, "trained": 6, "dropped": {"stale": 2}, "dead": 1, "outstanding": 0}
    with JsonLines(folder.steps) as lines:
        for step, rate in enumerate(rates, start=1):
            lines.write(
                step=step, attempt=1, pass_rate=rate, ess_ratio=0.9, mean_lag_steps=1.0, lag_tokens={"1": 10}, skipped=None,
                seconds=1.0, waited_s=1.0, groups=groups, wall_seconds=10.0 * step, trained_tokens=100, sampled_tokens=200,
            )  # fmt: skip
    with JsonLines(folder.evaluations) as lines:
        for step, rate in enumerate([0.1, *rates]):
            lines.write(policy_version=step, attempt=1, k=4, avg_at_k=rate, pass_at_k=rate)
    return folder.path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [
        made(tmp_path, "a", [0.2, 0.6, 0.5]),
        made(tmp_path, "b", [0.1, 0.2, 0.3], "learner.max_lag=0", 'redis.url="redis://:hidden@host"'),
    ]


def test_what_runs_came_to_and_in_what_they_differ(two: list[Path]) -> None:
    found = compare.compare(compare.read(two), [0.25, 0.5, 0.9])
    a, b = found["runs"]["a"], found["runs"]["b"]
    assert (a["final_accuracy"], a["best_accuracy"], b["final_accuracy"]) == (0.5, 0.6, 0.3)
    assert a["reached"] == {"0.25": (2, 20.0), "0.5": (2, 20.0), "0.9": None}
    assert b["reached"] == {"0.25": (3, 30.0), "0.5": None, "0.9": None}
    assert (a["ess_ratio_mean"], a["lag_steps_mean"], a["groups"]["dropped"]) == (0.9, 1.0, {"stale": 2})
    assert set(found["settings"]) == {"learner.max_lag", "redis.url"}
    assert found["settings"]["learner.max_lag"]["b"] == 0
    assert "hidden" not in json.dumps(found)


@pytest.mark.parametrize("width", [40, 120])
def test_a_comparison_in_text_fits_the_terminal(two: list[Path], width: int) -> None:
    histories = compare.read(two)
    console = Console(width=width, file=io.StringIO(), record=True)
    compare.show(histories, compare.compare(histories), console)
    said = console.export_text()
    assert max(map(len, said.splitlines())) <= width
    assert "max_lag" in said
    assert "best" in said


def test_runs_without_evaluations_are_compared_by_their_pass_rates(two: list[Path]) -> None:
    (two[1] / "evaluations.jsonl").unlink()
    found = compare.compare(compare.read(two))
    assert found["accuracy_is"] == "mean pass rate of 10 steps"
    assert found["runs"]["b"]["final_accuracy"] == pytest.approx(0.2)


def test_pages_need_nothing_else_and_hold_no_password(two: list[Path]) -> None:
    histories = compare.read(two)
    for page in (compare.html(histories, compare.compare(histories)), report.html(histories[1])):
        assert page.count("<svg") == 1
        assert "src=" not in page
        assert "@import" not in page
        assert "hidden" not in page
        assert "learner.max_lag" in page
    assert "has not ended" in report.html(histories[0])


def test_a_name_from_a_folder_is_text_in_a_page(two: list[Path]) -> None:
    odd = two[0].rename(two[0].with_name("<b>a"))
    page = report.html(read_history(odd))
    assert "<b>a" not in page
    assert "&lt;b&gt;a" in page


def test_settings_of_another_version_are_shown_without_addresses(two: list[Path]) -> None:
    settings = two[0] / "settings.toml"
    settings.write_text(settings.read_text(encoding="utf-8") + '\n[gone]\nurl = "http://me:hidden@host"\nrate = 3\n')
    history = read_history(two[0])
    assert (history.settings["gone.rate"], history.settings["gone.url"]) == (3, "***")


def test_one_run_is_not_a_comparison(two: list[Path]) -> None:
    with pytest.raises(InputError, match="at least two run folders"):
        compare.read(two[:1])
    with pytest.raises(InputError, match="the same name"):
        compare.read([two[0], two[0]])


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ratchet", *map(str, arguments)])
    codes: list[Any] = []
    monkeypatch.setattr(entry, "end", lambda main: codes.append(main()))
    monkeypatch.setattr(library_logs, "apply", lambda: None)  # it would be for all tests that come after
    cli.main()
    return int(codes[0])


def test_the_commands_write_their_files_and_json(
    two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, png = tmp_path / "page.html", tmp_path / "curves.png"
    assert called(monkeypatch, "compare", *two, "--html", page, "--png", png, "--json", "--threshold", "0.5") == 0
    assert list(json.loads(capsys.readouterr().out)["runs"]["a"]["reached"]) == ["0.5"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert png.stat().st_size > 1000
    assert called(monkeypatch, "report", two[0], "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["finished"], told["summary"]["steps"]) == ("a", False, 3)
    assert called(monkeypatch, "why", two[0]) == 0
    assert "nothing is known" in capsys.readouterr().out
    with pytest.raises(InputError, match="is not an accuracy"):
        called(monkeypatch, "compare", *two, "--threshold", "7")
    with pytest.raises(InputError, match="cannot be written"):
        called(monkeypatch, "report", two[0], "--html", tmp_path / "no" / "page.html")
