"""Commands on odd terminals: no colors, few columns, an encoding without blocks, a reader that leaves. Never a traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.command.test_compare import made

RATCHET = [sys.executable, "-c", "from services.command.cli import main; main()"]


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return [str(made(tmp_path, name, [0.2, 0.6, 0.5])) for name in ("a", "b")]


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1:strict", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"NO_COLOR": "1", "FORCE_COLOR": "1", "COLUMNS": "20"},
    ],
    ids=["latin-1", "C locale", "narrow without colors"],
)
def test_a_comparison_on_an_odd_terminal(two: list[str], environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [*RATCHET, "compare", *two], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "final" in ran.stdout
    if "NO_COLOR" in environment:
        assert "\x1b[3" not in ran.stdout  # no color; bold is none
        plain = re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout)
        assert max(map(len, plain.splitlines())) <= 20


def test_a_reader_that_leaves_a_table_is_no_error(two: list[str]) -> None:
    with subprocess.Popen([*RATCHET, "compare", *two], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 130
