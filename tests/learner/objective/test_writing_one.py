"""docs/writing-an-objective.md, as it is written: its count, its two files, its commands."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "writing-an-objective.md").read_text(encoding="utf-8")
INSIDE = PAGE[PAGE.index("## Inside Ratchet") : PAGE.index("## To make it one of Ratchet's")].rstrip("\n")
FILES = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", INSIDE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = "".join(re.findall(r"^```bash\n(.*?)^```$", INSIDE, flags=re.MULTILINE | re.DOTALL)).splitlines()
MOST_LINES = 150


def test_what_has_to_be_read_is_as_long_as_the_page_says_and_short() -> None:
    section = len(INSIDE.splitlines())
    tokens = len((ROOT / "learner" / "objective" / "tokens.py").read_text(encoding="utf-8").splitlines())
    said = re.search(r"this section \((\d+) lines\) and\s+`learner/objective/tokens.py` \((\d+) lines\)", INSIDE)
    assert said is not None
    assert said.groups() == (str(section), str(tokens))
    assert section + tokens <= MOST_LINES


def test_two_files_are_written_and_none_is_edited() -> None:
    assert set(FILES) == {"services/config/objectives/gmpo.py", "learner/objective/gmpo.py"}
    assert not any((ROOT / name).exists() for name in FILES)
    assert "Two new files, no other edit" in INSIDE


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the commands use, with the two files of the page and nothing else changed. What Python has compiled
    comes along: to compile it again takes longer than the commands do."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns(".hypothesis")
    for name in ("services", "learner", "rollout", "verifier", "tests", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_find_it(copy: Path, command: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(copy)}
    result = subprocess.run(
        f"{command} -p no:cacheprovider" if "pytest" in command else command,
        shell=True,
        check=False,
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    if "pytest" in command:
        passed = re.search(r"(\d+) passed", result.stdout)
        assert passed is not None
        assert int(passed[1]) >= 10
    else:
        assert 'type = "gmpo"\n' in result.stdout
        assert "log_clip = 0.4" in result.stdout
        assert 'normalize = "sample_std"' in result.stdout, "what it was published with"


def test_there_are_commands_for_both() -> None:
    assert [command.split()[0] for command in COMMANDS] == [".venv/bin/python", ".venv/bin/ratchet"]
