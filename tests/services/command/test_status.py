"""Where a run stands, from its files and, while it runs, its server."""

import io
from pathlib import Path

from rich.console import Console

from services.command.redis_server import RedisServer
from services.command.run_processes import write_settings
from services.command.status import describe, for_terminal
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from tests.services.command.running import run


def started(tmp_path: Path) -> RunFolder:
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    write_settings(config, folder)
    return folder


def test_a_run_that_is_not_running_is_told_from_its_files(tmp_path: Path) -> None:
    folder = started(tmp_path)
    groups = {"trained": 4, "dropped": {"zero_variance": 2, "stale": 1}, "dead": 0, "outstanding": 5}
    with JsonLines(folder.steps) as lines:
        lines.write(step=3, attempt=1, pass_rate=0.5, ess_ratio=0.9, mean_lag_steps=1.25, groups=groups)
    with JsonLines(folder.evaluations) as lines:
        lines.write(policy_version=3, attempt=1, k=4, avg_at_k=0.25, pass_at_k=0.5)
    said = describe(folder.path)
    assert "step 3 of " in said
    assert "pass rate 0.500, ESS ratio 0.900, lag 1.25 steps" in said
    assert "groups: 4 trained, 3 dropped, 0 dead, 5 outstanding" in said
    assert "held-out at version 3: avg@4 0.2500, pass@4 0.5000" in said
    assert said.endswith("not running")


def test_a_run_that_is_running_is_asked(tmp_path: Path) -> None:
    folder = started(tmp_path)
    with RedisServer(folder.redis) as server:
        folder.redis_url.write_text(server.url, encoding="utf-8")
        assert "stream prompts: 0 waiting, 0 claimed" in describe(folder.path)


def test_a_server_that_is_gone_is_said_and_is_not_an_error(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.redis_url.write_text(f"unix://{tmp_path}/no.sock", encoding="utf-8")
    assert "cannot ask its Redis server" in describe(folder.path)


def test_a_line_that_is_too_long_goes_on_further_in() -> None:
    said = io.StringIO()
    Console(file=said, width=30).print(for_terminal("run a in runs/a\n  one two three four five six seven eight"))
    assert said.getvalue() == "run a in runs/a\n  one two three four five six\n    seven eight\n"
