"""Logs as JSON: one object a line, exceptions and the end of a service included."""

import json
import os
import subprocess
import sys

import pytest

from services import log_lines
from services.errors import InputError

SERVICE = """
import logging, threading, warnings
from services import entry, log_lines
def main():
    entry.start_logging("learner")
    of_a_library = logging.getLogger("DeepSpeed")
    of_a_library.propagate = False
    of_a_library.addHandler(logging.StreamHandler())
    log_lines.adopt(of_a_library)
    of_a_library.error("no memory")
    log = logging.getLogger("ratchet.learner")
    log.info("step %d", 1, extra=log_lines.with_fields(step=1, loss=0.5))
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("two\\nlines")
    thread = threading.Thread(target=lambda: [][1])
    thread.start()
    thread.join()
    {end}
entry.end(main)
"""


def run(end: str, form: str) -> tuple[int, list[str]]:
    ran = subprocess.run(
        [sys.executable, "-c", SERVICE.format(end=end)],
        env=os.environ | {log_lines.FORMAT_VARIABLE: form},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stderr.splitlines()


def test_every_line_is_an_object_also_where_something_is_raised() -> None:
    code, lines = run('raise RuntimeError("not foreseen")', "json")
    said = [json.loads(line) for line in lines]
    assert code == 1
    assert [(one["level"], one["message"]) for one in said] == [
        ("ERROR", "no memory"),
        ("INFO", "step 1"),
        ("ERROR", "two\nlines"),
        ("CRITICAL", "IndexError: list index out of range"),
        ("CRITICAL", "not foreseen"),
    ]
    assert {one["room"] for one in said} == {"learner"}
    assert said[1]["fields"] == {"step": 1, "loss": 0.5}
    assert "ZeroDivisionError" in said[2]["exception"]
    assert "RuntimeError: not foreseen" in said[4]["exception"]
    assert said[0]["time"].endswith("+00:00")


def test_what_the_user_got_wrong_has_no_traceback() -> None:
    code, lines = run('from services.errors import InputError; raise InputError("no such file")', "json")
    last = json.loads(lines[-1])
    assert (code, last["message"], last["fields"]) == (2, "no such file", {"exit_code": 2})
    assert "exception" not in last


def test_an_unknown_format_is_refused_with_those_that_there_are() -> None:
    code, lines = run("return 0", "xml")
    assert code == 2
    assert lines == ["ratchet: RATCHET_LOG_FORMAT = xml is not a format of logs; give one of text, json"]


def test_a_format_that_is_not_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log_lines.FORMAT_VARIABLE, "json")
    log_lines.choose(None)
    assert log_lines.is_json()
    log_lines.choose("text")
    assert not log_lines.is_json()
    monkeypatch.setenv(log_lines.FORMAT_VARIABLE, "yaml")
    with pytest.raises(InputError):
        log_lines.is_json()
