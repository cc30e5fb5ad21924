"""What a service warns of reaches the terminal of `ratchet up`, once."""

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from services.command.live_display import LiveDisplay
from services.command.service_warnings import MOST, ServiceWarnings, warnings_in
from services.command.supervisor import Service, Supervisor
from services.entry import DONE
from services.run.folder import RunFolder
from tests.services.command.running import run

# Logs as every service does, and ends well.
WARNS = """
import logging
from services.entry import start_logging
start_logging()
log = logging.getLogger("ratchet.learner")
log.info("the start")
log.warning("step 1: engine and learner differ by 0.02 nats\\n  the likely causes, in order: [weights]")
log.warning("step 2: engine and learner differ by 0.03 nats\\n  the likely causes, in order: [weights]")
log.warning("learner.steps = 5 is odd")
log.info("done")
"""


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_warning_of_a_service_is_on_the_terminal_of_up_once(tmp_path: Path, is_terminal: bool) -> None:
    config = run(tmp_path)
    logs = RunFolder(config.folder).logs
    logs.mkdir(parents=True)
    old = "2026-11-27 20:00:00,000 WARNING ratchet.learner: of an earlier start\n"
    (logs / "learner.log").write_text(old, encoding="utf-8")
    said = io.StringIO()
    console = Console(file=said, force_terminal=is_terminal, width=60)
    learner = Service("learner", [sys.executable, "-c", WARNS], logs / "learner.log", {})
    end_s = time.monotonic() + 60
    with LiveDisplay(config, console, known=["learner.steps = 4 is odd"]) as display:
        code = Supervisor(learner, [], shutdown_s=10).run(lambda: time.monotonic() > end_s, display.tick)
    assert code == DONE
    shown = said.getvalue()
    assert shown.count("engine and learner differ by 0.02 nats") == 1
    assert shown.count("the likely causes, in order: [weights]") == 1
    for left_out in ("0.03", "the start", "done", "is odd", "earlier start"):
        assert left_out not in shown


def test_the_warnings_of_services_that_come_later_are_read_from_their_start(tmp_path: Path) -> None:
    warnings = ServiceWarnings(tmp_path)
    assert warnings.read() == []
    line = "2026-11-27 20:00:00,123 {level:7} ratchet.verifier: {said}\n"
    with (tmp_path / "verifier.log").open("a", encoding="utf-8") as log:
        log.write("--- 2026-11-27 20:00:00 starting verifier\n")
        log.write(line.format(level="INFO", said="scoring on 127.0.0.1"))
        log.write(line.format(level="ERROR", said="a grader cannot be used"))
        for status, request in ((503, "0a" * 16), (413, "f7" * 16)):
            log.write(line.format(level="WARNING", said=f"status {status}: POST /v1/score, request {request}"))
        log.write("2026-11-27 20:00:00,123 WARN")  # not finished
        log.flush()
        assert warnings.read() == [
            "verifier: a grader cannot be used",
            f"verifier: status 503: POST /v1/score, request {'0a' * 16}",
        ]
        log.write("ING ratchet.verifier: a new one\n")
    assert warnings.read() == ["verifier: a new one"]
    assert warnings.read() == []


def test_a_service_that_warns_of_ever_new_things_does_not_fill_the_terminal(tmp_path: Path) -> None:
    warnings = ServiceWarnings(tmp_path)
    words = [f"{first}{second}" for first in "abcdefgh" for second in "abcdefgh"]
    text = "".join(f"2026-11-27 20:00:00,123 WARNING ratchet.rollout: {word}\n" for word in words)
    (tmp_path / "rollout-0.log").write_text(text, encoding="utf-8")
    shown = warnings.read()
    assert len(shown) == MOST
    assert shown[-1].endswith(f"(more are in {tmp_path / 'rollout-0.log'})")


def test_lines_without_a_beginning_of_their_own_belong_to_the_warning_before_them() -> None:
    text = (
        "stray\n2026-11-27 20:00:00,123 WARNING ratchet.learner: one\n  two\n--- 2026-11-27 20:00:01 starting learner\n"
        "three\n2026-11-27 20:00:00,123 INFO    ratchet.learner: four\nfive\n"
    )
    assert list(warnings_in(text)) == ["one\n  two"]


def test_warnings_are_found_in_json_lines_too() -> None:
    lines = [
        '{"time": "t", "level": "INFO", "room": "learner", "logger": "ratchet.learner", "message": "the start"}',
        '{"time": "t", "level": "WARNING", "room": "learner", "logger": "ratchet.learner", "message": "it is odd"}',
        '{"time": "t", "level": "ERR',
    ]
    assert [message.splitlines()[0] for message in warnings_in("\n".join(lines))] == ["it is odd"]
