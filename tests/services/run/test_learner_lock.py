"""One learner for a folder, whatever ended the one before."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.errors import InputError
from services.run.folder import RunFolder
from services.run.learner_lock import held_by_learner

OTHER = """
import sys, pathlib
from services.run.folder import RunFolder
from services.run.learner_lock import held_by_learner
with held_by_learner(RunFolder(pathlib.Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_learner_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    refused = pytest.raises(
        InputError, match=rf"in use by another learner \(process {other.pid} on .*\); stop it first"
    )
    with refused, held_by_learner(folder):
        pass
    other.kill()
    other.communicate()
    with held_by_learner(folder):
        pass
