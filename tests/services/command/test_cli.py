"""A wrong command line is refused with exit code 2 and one message that names the place, the value and what to do."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = "examples/addition/addition.toml"


def ratchet(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    program = "from services.command.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "ratchet: no command was given; `ratchet --help` lists them"),
        (["upp"], 'ratchet: "upp" is not a command; did you mean "up"?'),
        (["xyzzy"], 'ratchet: "xyzzy" is not a command; `ratchet --help` lists them'),
        (["up"], "ratchet up: the following arguments are required: config; see `ratchet up --help`"),
        (["up", "nofile.toml"], "ratchet: no configuration at nofile.toml; give the path of a TOML file"),
        (["up", "examples"], "ratchet: examples is a folder; give the path of a TOML file"),
        (["up", RUN, "--set", "steps"], '"--set steps" is not of the form section.key=value; write it like'),
        (["config", RUN, "--set", "learner.stepz=3"], 'learner.stepz: no such key; did you mean "steps"?'),
        (["config", RUN, "extra"], "ratchet: unrecognized arguments: extra; see `ratchet --help`"),
        (["eval", RUN, "--set", "name=never-ran"], "runs/never-ran has no checkpoint to evaluate; give a model folder"),
        (["eval", RUN, "--model", "nowhere"], "nowhere; give a Hugging Face model folder or name"),
        (["status"], "ratchet status: the following arguments are required: folder; see `ratchet status --help`"),
        (
            ["status", "nowhere"],
            "ratchet: nowhere is not a run folder: it has no settings.toml. Give one like runs/NAME",
        ),
        (["doctor", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["doctor", "nofile.toml"], "ratchet: no configuration at nofile.toml"),
        (["doctor", "--set", "device=cuda"], "ratchet: --set overrides a setting of a run file; give the file"),
        (["rollout"], "ratchet rollout: the following arguments are required: config; see `ratchet rollout --help`"),
        (["learner", "nofile.toml"], "ratchet: no configuration at nofile.toml"),
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], complaint: str) -> None:
    ended = ratchet(*arguments)
    assert ended.returncode == 2, ended.stderr
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "name: missing; add it"),
        (b"\x00\xff", "is not a text file: byte 1 is not UTF-8; give the path of a TOML file"),
        (b"steps: 3", "is not valid TOML"),
    ],
)
def test_a_file_that_is_not_a_run_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    ended = ratchet("up", tmp_path / "run.toml")
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_it_says_which_version_it_is() -> None:
    ended = ratchet("--version")
    assert (ended.returncode, ended.stdout) == (0, f"ratchet {importlib.metadata.version('ratchet')}\n")


def test_help_names_every_command() -> None:
    said = ratchet("--help").stdout
    for command in ("up", "eval", "status", "verify", "config", "plan", "doctor", "rollout", "verifier", "learner"):
        assert f"\n    {command} " in said
