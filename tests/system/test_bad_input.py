"""What is wrong is said before anything expensive starts: exit code 2, the place, the value, what to do."""

import json
import socket
from pathlib import Path

import pytest

from services.command.redis_server import RedisServer
from tests.system.conftest import Ratchet

RUN = "examples/addition/addition.toml"


def refused(ratchet: Ratchet, tmp_path: Path, *overrides: str, command: str = "up", **environment: str) -> str:
    """What a command says when it refuses the run: no engine, learner or Redis was started."""
    options = [part for override in (f"runs_folder={tmp_path}/runs", *overrides) for part in ("--set", override)]
    result = ratchet(command, RUN, *options, **environment)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("runs/*/logs/*"))
    return result.stderr


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("learner.max_lagg=3", 'no such key; did you mean "max_lag"'),
        ('learner.steps="many"', "learner.steps = 'many': input should be a valid integer"),
        ("learner.objective.weight_low=1.5", "the one-way bounds must enclose 1"),
        ("rollout.sampling.max_tokens=12", "leaves no room for a prompt"),
        ("prompts.grader=maths", "maths"),
    ],
)
def test_a_wrong_setting(ratchet: Ratchet, example: Path, tmp_path: Path, override: str, complaint: str) -> None:
    assert complaint in refused(ratchet, tmp_path, override)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("model.path=./nowhere", "model.path: no folder"),
        ("model.max_length=100000", "is above the"),
        ("rollout.sampling.max_tokens=8", "prompt"),
    ],
)
def test_a_setting_that_does_not_fit_the_files(
    ratchet: Ratchet, example: Path, tmp_path: Path, override: str, complaint: str
) -> None:
    """The check of `ratchet up`, by the command that does nothing else. `up` itself, which lets its learner do it and starts one
    and an engine for that, is tried on a broken line below; that both find the same: tests/services/command/test_slow_check.py.
    """
    overrides = [override, "learner.row_tokens=100000"] if "max_length" in override else [override]
    assert complaint in refused(ratchet, tmp_path, *overrides, command="config")


def test_an_empty_dataset(ratchet: Ratchet, example: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    said = refused(ratchet, tmp_path, f"prompts.source.path={tmp_path}/empty.jsonl")
    assert "empty.jsonl" in said


def test_a_broken_line_is_named(ratchet: Ratchet, example: Path, tmp_path: Path) -> None:
    good = json.dumps({"prompt": "11+11=", "reference": "22"})
    (tmp_path / "broken.jsonl").write_text(f"{good}\n{good}\n{good[:-5]}\n", encoding="utf-8")
    said = refused(ratchet, tmp_path, f"prompts.source.path={tmp_path}/broken.jsonl")
    assert "broken.jsonl" in said
    assert "line 3" in said


def test_a_port_in_use(ratchet: Ratchet, example: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(ratchet, tmp_path, f"verifier.port={port}")
    assert f"verifier.port = {port}" in said


def test_a_wrong_redis_password(ratchet: Ratchet, example: Path, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        server.start()
        secret = server.url.split("@")[0].removeprefix("unix://:")
        said = refused(ratchet, tmp_path, RATCHET_REDIS_URL=server.url.replace(secret, "not-it"))
    assert "password" in said
    assert secret not in said
    assert "not-it" not in said


def test_a_service_alone_says_that_it_needs_redis(ratchet: Ratchet, example: Path) -> None:
    result = ratchet("rollout", RUN)
    assert result.returncode == 2
    assert "RATCHET_REDIS_URL" in result.stderr


def test_an_unknown_command_and_no_command(ratchet: Ratchet) -> None:
    assert ratchet("upp").returncode == 2
    assert ratchet().returncode == 2


def test_a_folder_that_is_not_a_run(ratchet: Ratchet, tmp_path: Path) -> None:
    result = ratchet("status", tmp_path)
    assert result.returncode == 2
    assert "is not a run folder" in result.stderr


def test_a_dry_run_prints_settings_that_load_again(ratchet: Ratchet, example: Path, tmp_path: Path) -> None:
    result = ratchet("up", RUN, "--dry-run", "--set", "learner.max_lag=3")
    assert result.returncode == 0
    (tmp_path / "resolved.toml").write_text(result.stdout, encoding="utf-8")
    again = ratchet("config", tmp_path / "resolved.toml", "--quick")
    assert again.stdout == result.stdout
    assert "max_lag = 3" in result.stdout
