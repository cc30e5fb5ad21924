"""The end of a run: a table and a picture, also of a run that measured little."""

from pathlib import Path

from rich.console import Console

from services.command.report import draw, show
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.run.summary import summarize

GROUPS = {"issued": 10, "trained": 6, "dropped": {"zero_variance": 2}, "dead": 0, "outstanding": 2}
COUNTS = {"wall_seconds": 12.0, "sampled_tokens": 12_345, "sampled_trajectories": 80, "trained_tokens": 999}


def test_a_run_without_an_evaluation_or_a_broadcast_has_a_report(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "try")
    with JsonLines(folder.steps) as lines:
        for step in (1, 2):
            lines.write(
                step=step, attempt=1, pass_rate=0.5, ess_ratio=0.9, mean_lag_steps=1.0, lag_tokens={"1": 10},
                skipped=None, seconds=1.0, waited_s=0.5,
            )  # fmt: skip
    draw(folder)
    console = Console(width=100, record=True)
    show(folder, summarize(folder, GROUPS, COUNTS, []), console)
    said = console.export_text()
    assert "try: 2 steps in 12 s" in said
    assert "12,345 / 999" in said
    assert "6 / 2 / 0" in said
    assert folder.picture.stat().st_size > 1000
