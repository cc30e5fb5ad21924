"""The page on running on one's own data, step by step as a reader would; its errors are those that come.

`ratchet up` of the page itself is not run: tests/system/test_readme.py runs the same with the README's files.
"""

import itertools
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from services.command import preflight
from services.config import RunConfig
from services.config.load import load
from services.config.prompts import PromptsConfig
from services.datasets.dataset import load_problems
from services.errors import InputError
from tests.system.conftest import ROOT

PAGE = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r'^```(\w*)(?: title="([\w.-]+)")?\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
UP = ".venv/bin/ratchet up my-data.toml"
FAULTS = [
    (command.strip(), text.removeprefix("ratchet: ").strip())
    for (kind, _, command), (_, _, text) in itertools.pairwise(BLOCKS)
    if kind == "bash" and text.startswith("ratchet: ")
]


@pytest.fixture(scope="module")
def reader(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reader's files, after every command of the page that starts no service."""
    folder = tmp_path_factory.mktemp("reader")
    for name in (".venv", "examples"):
        (folder / name).symlink_to(ROOT / name)
    for _, name, body in BLOCKS:
        if name:
            (folder / name).write_text(body, encoding="utf-8")
    for kind, _, body in BLOCKS:
        for command in body.splitlines() if kind == "bash" else ():
            if not command.startswith(UP):
                subprocess.run(command, shell=True, check=True, cwd=folder, capture_output=True, timeout=120)
    return folder


def test_the_run_of_the_page_passes_every_check(reader: Path) -> None:
    assert preflight.check(load(reader / "my-data.toml")).warnings == []


@pytest.mark.parametrize(("command", "fault"), FAULTS, ids=[command.rpartition(" ")[2] for command, _ in FAULTS])
def test_an_error_of_the_page_is_the_one_that_comes(reader: Path, command: str, fault: str) -> None:
    overrides = [word for word in shlex.split(command.removeprefix(UP)) if word != "--set"]
    with pytest.raises(InputError) as raised:
        preflight.check(load(reader / "my-data.toml", overrides))
    assert str(raised.value).replace(f"{ROOT}/", "").replace(f"{reader}/", "") == fault


def test_every_error_of_the_page_is_looked_at() -> None:
    assert len(FAULTS) == PAGE.count("\nratchet: ") == 6


@pytest.mark.parametrize("kind", ["parquet", "huggingface"])
def test_other_sources_hold_the_same_rows(reader: Path, kind: str) -> None:
    written = [
        tomllib.loads(body)["source"] for name, _, body in BLOCKS if name == "toml" and body.startswith("source")
    ]
    source = next(one for one in written if one["type"] == kind and "subset" not in one)
    place = {"path": str(reader / source["path"])} if "path" in source else {"name": str(reader / source["name"])}
    columns = {"prompt": "question", "reference": "answer"}
    asked = PromptsConfig.model_validate({"source": source | place, "columns": columns, "grader": "exact"}).each[0]
    assert load_problems(asked) == load_problems(load(reader / "my-data.toml").prompts.each[0])


def test_the_settings_for_a_gpu_are_settings() -> None:
    written = next(body for name, _, body in BLOCKS if name == "toml" and body.startswith('device = "cuda"'))
    config = RunConfig.model_validate({"name": "x", **tomllib.loads(written)})
    assert config.prompts.template == "chat"
