"""What `ratchet up` says: warnings on the terminal, everything in logs/up.log, and JSON where logs are JSON."""

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from services import log_lines
from services.command import up_log as up_log_module
from services.command.up_log import say, up_log, warn


def test_our_warnings_reach_the_terminal_and_the_noise_of_libraries_the_file_alone(tmp_path: Path) -> None:
    said = io.StringIO()
    path = tmp_path / "logs" / "up.log"
    with up_log(path, Console(file=said, width=40)):
        logging.getLogger("ratchet").warning("rollout-0 was killed by SIGKILL; starting it again (log: [x])")
        logging.getLogger("ratchet").info("all is well")
        logging.getLogger("some.library").warning("noise")
    logging.getLogger("ratchet").warning("after the end")
    assert said.getvalue() == "warning: rollout-0 was killed by SIGKILL; starting it again (log: [x])\n"
    kept = path.read_text(encoding="utf-8")
    assert [line.split(": ")[-1] for line in kept.splitlines()] == ["[x])", "all is well", "noise"]


def test_in_json_everything_is_logged_with_its_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(log_lines.FORMAT_VARIABLE, "json")
    said = io.StringIO()
    path = tmp_path / "up.log"
    with up_log(path, Console(file=said)):
        say(Console(file=said), "step 1", step=1)
        warn(Console(file=said), "odd")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(one["level"], one["room"], one["message"], one["fields"]) for one in lines] == [
        ("INFO", "up", "step 1", {"step": 1}),
        ("WARNING", "up", "odd", {}),
    ]
    assert said.getvalue() == ""


def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up_log_module, "LOG_BYTES", 200)
    path = tmp_path / "up.log"
    with up_log(path, Console(file=io.StringIO())):
        for number in range(20):
            logging.getLogger("some.library").warning("noise %d", number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["up.log", "up.log.1"]
    assert all(file.stat().st_size <= 200 for file in files)
    assert "noise 19" in path.read_text()
