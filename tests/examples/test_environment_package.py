"""The environment of examples/environment: installed as a third party's package is, and used in a conversation."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "environment"
PAGE = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ ([\w./-]+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
COMMANDS = "".join(re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)).splitlines()
UV = Path(sys.executable).parent / "uv"
CONVERSATION = """
import asyncio
from rollout.environments.loading import environment_maker
from tests.fakes.talking_engine import TalkingEngine
from tests.fakes.tokenizers import tokenizer_of
from tests.rollout.conversation.talking import conversations, message, prompt, run_config

CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "12 * 7"}}</tool_call>'
end = tokenizer_of("chatml").eos_token_id
began = lambda asked: asked.token_ids.numpy().tolist().count(end)
engine = TalkingEngine(lambda asked: message(CALL if began(asked) < 4 else "It is 84."))

async def hold():
    talks = conversations(environment_maker(run_config(name="calculator", options={"calls": 1})))
    group = await talks.sample(prompt(grader="number", reference="84", group_size=2), engine.sample)
    await talks.stop()
    return group

group = asyncio.run(hold())
text = tokenizer_of("chatml").decode(group.prompt.token_ids.numpy().tolist())
assert '"name": "calculator"' in text, text
for one in group.trajectories:
    said = [tokenizer_of("chatml").decode(turn.given.numpy().tolist()) for turn in one.turns]
    assert len(said) == 2 and "tool\\n84" in said[1], said
    assert (one.finish_reason, one.reward) == ("stop", None)
print("held")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With the package and its entry point, built from a copy: building writes beside the sources."""
    folder = tmp_path_factory.mktemp("environment")
    ignored = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=ignored)
    target = folder / "installed"
    how = ["--no-deps", "--no-build-isolation", "--offline", "--python", sys.executable, "--target", str(target)]
    command = [str(UV), "pip", "install", *how, str(source)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return os.environ | {"PYTHONPATH": f"{target}{os.pathsep}{ROOT}"}


def test_the_files_on_the_page_are_those_of_the_example() -> None:
    shown = {"ratchet_environment_calculator.py", "pyproject.toml", "tests/test_calculator.py"}
    assert shown < set(BLOCKS)
    for name in shown:
        assert BLOCKS[name] == (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_its_own_tests_pass_where_it_is_installed(environment: dict[str, str], tmp_path: Path) -> None:
    """Installing is done above, where it leaves this environment as it was."""
    assert ".venv/bin/uv pip install --no-deps examples/environment" in COMMANDS
    (command,) = [line for line in COMMANDS if "pytest" in line]
    for name in (".venv", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    result = subprocess.run(
        command, shell=True, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout


def test_the_policy_talks_with_it_by_its_name(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CONVERSATION], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.stdout == "held\n", result.stderr


def test_the_run_file_on_the_page_is_that_of_the_game() -> None:
    """Shown in parts: each section as it stands in examples/guessing/guessing.toml."""
    whole = (ROOT / "examples" / "guessing" / "guessing.toml").read_text(encoding="utf-8")
    for part in BLOCKS["guessing.toml"].strip().split("\n\n"):
        assert part in whole, part
