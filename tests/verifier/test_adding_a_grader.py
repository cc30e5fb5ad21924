"""docs/writing-a-grader.md: a grader is added inside, in a copy of the repository, exactly as the page says."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-grader.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ ([\w./-]+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
FILE, LIST = "verifier/graders/parity.py", "services/graders.py"
(COMMAND,) = re.findall(r"`python (-m verifier\.grader_table [\w./]+)`", PAGE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The new file, the line in the list, and the command; nothing else."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("services", "verifier", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / FILE).write_text(BLOCKS[FILE], encoding="utf-8")
    graders = (root / LIST).read_text(encoding="utf-8")
    last = re.findall(r'^    "remote": .*\n', graders, flags=re.MULTILINE)[0]
    (root / LIST).write_text(graders.replace(last, BLOCKS[LIST] + last), encoding="utf-8")
    run(root, *COMMAND.split())
    return root


def run(root: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_verifies_with_it(copy: Path) -> None:
    lines = [
        {"response": "It is 12.", "reference": "even", "expected": "correct"},
        {"response": "It is 13.", "reference": "even", "expected": "incorrect"},
        {"response": "It is 12.", "reference": "even", "expected": "incorrect", "options": {"bare": True}},
        {"response": "thirteen", "reference": "odd", "expected": "incorrect"},
        {"response": "12", "reference": 12, "expected": "error"},
    ]
    (copy / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    said = run(copy, "-m", "verifier.offline", "answers.jsonl", "--grader", "parity", "--processes", "1")
    assert "agreement 100.00 % (5 of 5)" in said


def test_its_row_is_on_the_page(copy: Path) -> None:
    page = (copy / "docs" / "verifier.md").read_text(encoding="utf-8")
    summary = "the whole number that ends the response is even or odd, as the reference says"
    assert f"| `parity` | {summary} | `bare`, `thought` |\n" in page


def test_the_types_of_a_grader_are_checked(copy: Path) -> None:
    def errors(source: str) -> str:
        (copy / FILE).write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", FILE]
        environment = os.environ | {"MYPYPATH": str(copy)}
        return subprocess.run(
            command, cwd=copy, env=environment, check=False, capture_output=True, text=True, timeout=300
        ).stdout

    assert "Success" in errors(BLOCKS[FILE])
    wrong = BLOCKS[FILE].replace("reference: Any) -> Judgment", "reference: Any) -> bool")
    assert 'incompatible with return type "Judgment" in supertype' in errors(wrong)


def test_what_there_is_to_read_is_as_short_as_the_page_says() -> None:
    assert "under 100 lines in all" in PAGE
    source = (ROOT / "verifier" / "grader.py").read_text(encoding="utf-8")
    (grader,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Grader"]
    (ours,) = re.findall(r"^OURS.*?^}", (ROOT / LIST).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert (grader.end_lineno or 0) + len(ours.splitlines()) < 100
