"""The grader of examples/grader: installed as a third party's package is, and used by the service and the command."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "grader"
PAGE = (ROOT / "docs" / "writing-a-grader.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ ([\w./-]+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
UV = Path(sys.executable).parent / "uv"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and its entry point, built from a copy: building writes beside the sources."""
    folder = tmp_path_factory.mktemp("grader")
    ignored = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=ignored)
    target = folder / "installed"
    how = ["--no-deps", "--no-build-isolation", "--offline", "--python", sys.executable, "--target", str(target)]
    command = [str(UV), "pip", "install", *how, str(source)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture(scope="module")
def environment(installed: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"}


@pytest.fixture(scope="module")
def verifier(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("services")
    command = [sys.executable, "-m", "verifier", "--processes", "1", "--services-folder", str(folder)]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "scoring on" not in line:
            assert line, "the verifier ended"
            line = process.stderr.readline()
        yield re.findall(r"http://\S+", line)[0]
        process.terminate()
        assert process.wait(30) == 0


def test_the_files_on_the_page_are_those_of_the_example() -> None:
    shown = {"ratchet_grader_roman.py", "pyproject.toml", "tests/test_roman.py"}
    within = {"verifier/graders/parity.py", "services/graders.py"}  # tests/verifier/test_adding_a_grader.py
    assert set(BLOCKS) == shown | within | {"answers.jsonl"}
    for name in shown:
        assert BLOCKS[name] == (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_the_service_shows_it_with_its_options(verifier: str) -> None:
    entries = httpx.get(f"{verifier}/v1/graders", timeout=30).json()["graders"]
    (roman,) = [entry for entry in entries if entry["name"] == "roman"]
    assert roman["fault"] == ""
    assert roman["summary"].startswith("Grader `roman`: the last Roman numeral")
    options = roman["options"]["$defs"]["Roman"]["properties"]
    assert options.pop("thought")["default"] == ["<think>", "</think>"]  # the one that every grader has
    assert options == {
        "lower_case": {"type": "boolean", "default": False},
        "well_formed": {"type": "boolean", "default": True},
    }


def test_the_service_scores_with_it_beside_its_own(verifier: str) -> None:
    def item(response: str, reference: Any, **fields: Any) -> dict[str, Any]:
        return {"id": response[:9], "grader": "roman", "response": response, "reference": reference} | fields

    items = [
        item("It is XIV.", 14),
        item("It is XV.", 14),
        item("it is xiv", 14, options={"lower_case": True}),
        item("XIV", "14"),
        item("XIV", 14, options={"upper_case": True}),
        item("XIV", "XIV", grader="exact"),
    ]
    results = httpx.post(f"{verifier}/v1/score", json={"items": items}, timeout=60).json()["results"]
    assert [one["verdict"] for one in results] == ["correct", "incorrect", "correct", "error", "error", "correct"]
    assert "1 to 3999" in results[3]["detail"]
    assert "unknown options upper_case; this grader knows lower_case, well_formed" in results[4]["detail"]


def test_the_commands_on_the_page(environment: dict[str, str], tmp_path: Path) -> None:
    """Installing is done above, where it leaves this environment as it was."""
    lines = [line for block in COMMANDS for line in block.splitlines()]
    assert lines[0] == ".venv/bin/uv pip install --no-deps examples/grader"
    (tmp_path / "answers.jsonl").write_text(BLOCKS["answers.jsonl"], encoding="utf-8")
    for name in (".venv", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    outputs = [
        subprocess.run(
            line, shell=True, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        ).stdout
        for line in lines[1:]
    ]
    assert "passed" in outputs[0]
    assert "agreement 100.00 % (3 of 3)" in outputs[1]


def test_the_expected_verdicts_on_the_page_hold_without_the_service(environment: dict[str, str]) -> None:
    program = """
import json, sys
from ratchet_grader_roman import Roman
from verifier.grader import build_grader
for line in sys.stdin:
    row = json.loads(line)
    assert build_grader(Roman, row.get("options", {})).score(row["response"], row["reference"]).correct == (
        row["expected"] == "correct"), row
"""
    subprocess.run(
        [sys.executable, "-c", program], input=BLOCKS["answers.jsonl"], text=True, env=environment, check=True
    )


def test_a_name_that_is_taken_is_refused(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    rival = tmp_path / "rival-1.0.dist-info"
    rival.mkdir()
    (rival / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n", encoding="utf-8")
    (rival / "entry_points.txt").write_text("[ratchet.graders]\nroman = elsewhere:Roman\n", encoding="utf-8")
    both = environment | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"}
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"response": "XIV", "reference": 14}), encoding="utf-8")
    command = [sys.executable, "-m", "verifier.offline.__main__", str(file)]
    result = subprocess.run(command, check=False, env=both, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert 'brings a grader "roman"' in result.stderr
