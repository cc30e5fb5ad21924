import os
import subprocess
import sys

import pytest

from services import library_logs
from services.errors import InputError

SERVICE = """
import logging, sys, warnings
from services import entry, library_logs
entry.start_logging()
warnings.warn("of a library", FutureWarning)
logging.getLogger("some.library").info("at work")
logging.getLogger("some.library").error("failed")
logging.getLogger("ratchet.learner").info("step 1")
import tqdm
list(tqdm.tqdm(range(3)))
"""


def said(**variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in library_logs.environment({})}
    kept.pop(library_logs.LEVEL_VARIABLE, None)
    ran = subprocess.run(
        [sys.executable, "-c", SERVICE], env=kept | variables, capture_output=True, text=True, check=True
    )
    return ran.stderr


def test_a_log_has_the_services_own_lines_and_the_errors_of_libraries() -> None:
    lines = said().splitlines()
    assert [line.partition(" ")[2].partition(" ")[2] for line in lines] == [
        "ERROR   some.library: failed",
        "INFO    ratchet.learner: step 1",
    ]


def test_an_operator_can_have_their_warnings() -> None:
    seen = said(**{library_logs.LEVEL_VARIABLE: "warning"})
    assert "FutureWarning: of a library" in seen
    assert "100%" in seen


def test_what_an_operator_set_for_one_library_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library_logs.LEVEL_VARIABLE, raising=False)
    added = library_logs.environment({"VLLM_LOGGING_LEVEL": "DEBUG"})
    assert "VLLM_LOGGING_LEVEL" not in added
    assert added["TRANSFORMERS_VERBOSITY"] == "error"


def test_an_unknown_level_is_refused_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library_logs.LEVEL_VARIABLE, "quiet")
    with pytest.raises(InputError, match="QUIET is not a level; give one of ERROR, WARNING, INFO, DEBUG"):
        library_logs.level()
