"""What `ratchet up` and `ratchet eval` do with folders and say at the end; nothing here starts an engine or a learner."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.command import preflight, up
from services.command.redis_server import RedisServer
from services.command.supervisor import Service
from services.config import RunConfig
from services.config.load import load
from services.entry import INTERRUPTED, REDIS_URL_VARIABLE
from services.errors import InputError
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from tests.services.config.test_load import SMALLEST


@pytest.fixture(autouse=True)
def _no_models_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name a model and data that are not there: what preflight says of them has tests of its own."""
    monkeypatch.setattr(preflight, "check", lambda config: [])
    monkeypatch.delenv(REDIS_URL_VARIABLE, raising=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of services: what is in the run's folder when they would be started, each time."""
    seen: list[list[str]] = []

    def supervise(config: RunConfig, *_: object) -> int:
        seen.append(sorted(path.name for path in config.folder.iterdir()))
        (config.folder / "left-over").touch()
        return INTERRUPTED

    monkeypatch.setattr(up, "_supervise", supervise)
    return seen


def run(tmp_path: Path, *overrides: str) -> RunConfig:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return load(tmp_path / "run.toml", [f"runs_folder={tmp_path}/runs", *overrides])


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """By another process."""
    program = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); print(); input()"
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.kill()


def test_an_evaluation_begins_with_an_empty_folder_and_leaves_the_checkpoints_alone(
    tmp_path: Path, started: list[list[str]]
) -> None:
    config = run(tmp_path)
    saved = RunFolder(config.folder).checkpoints / "step-00000004"
    saved.mkdir(parents=True)
    for _ in range(2):
        assert up.evaluate(config, None) == INTERRUPTED
    assert started[0] == started[1]
    assert "left-over" not in started[1]
    assert "checkpoints" in started[1]
    assert saved.is_dir()


def test_an_evaluation_leaves_a_running_one_its_folder(tmp_path: Path, started: list[list[str]]) -> None:
    config = run(tmp_path)
    up.evaluate(config, tmp_path)
    with in_use(tmp_path / "runs" / "try.eval"), pytest.raises(InputError, match=r"try\.eval is in use by another"):
        up.evaluate(config, tmp_path)
    assert (tmp_path / "runs" / "try.eval" / "left-over").exists()


def test_an_evaluation_does_not_delete_a_run_of_that_name(tmp_path: Path, started: list[list[str]]) -> None:
    steps = RunFolder(run(tmp_path, "name=try.eval").folder).steps
    JsonLines(steps).write(step=1)
    with pytest.raises(InputError, match=r"try\.eval is where this evaluation would go.*Move it away"):
        up.evaluate(run(tmp_path), tmp_path)
    assert steps.exists()
    assert not started


def test_a_run_does_not_train_in_the_folder_of_an_evaluation(tmp_path: Path, started: list[list[str]]) -> None:
    """Its checkpoints are those of another run."""
    up.evaluate(run(tmp_path), tmp_path)
    with pytest.raises(InputError, match=r"try\.eval is the folder of a `ratchet eval`"):
        up.up(run(tmp_path, "name=try.eval"))


def test_a_run_without_a_checkpoint_has_nothing_to_evaluate(tmp_path: Path, started: list[list[str]]) -> None:
    with pytest.raises(InputError, match="no checkpoint to evaluate"):
        up.evaluate(run(tmp_path), None)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("checkpoints", "steps", "said"),
    [
        ([], 0, "stopped before the first checkpoint; the same command starts from the beginning."),
        ([], 3, "stopped before the first checkpoint; the same command starts from the beginning."),
        ([10, 20], 20, "stopped; the same command goes on from the checkpoint of step 20."),
        ([10, 20], 23, "goes on from the checkpoint of step 20, and takes the 3 steps after it again."),
        ([10], 0, "stopped; the same command goes on from the checkpoint of step 10."),
    ],
)
def test_a_run_that_is_stopped_says_what_there_is_to_go_on_from(
    tmp_path: Path,
    started: list[list[str]],
    capsys: pytest.CaptureFixture[str],
    checkpoints: list[int],
    steps: int,
    said: str,
) -> None:
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    for version in checkpoints:
        (folder.checkpoints / f"step-{version:08d}").mkdir(parents=True)
    lines = JsonLines(folder.steps)
    for step in range(steps):
        lines.write(step=step + 1, attempt=1)
    assert up.up(config) == INTERRUPTED
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("url", "mode"), [("redis://:s3cr3t@host:1/0", 0o600), ("redis://host:1/0", 0o644)])
def test_settings_with_a_password_are_for_this_user_alone(tmp_path: Path, url: str, mode: int) -> None:
    config = run(tmp_path, f'redis.url="{url}"')
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    folder.settings.touch(mode=0o644)  # as an earlier start left it
    before = os.umask(0o022)
    try:
        up._write_settings(config, folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.settings.stat().st_mode) == mode
    assert load(folder.settings) == config


def test_every_service_sees_its_own_gpus_and_the_supervisor_watches_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    class Recording:
        def __init__(
            self, learner: Service, feeding: Sequence[Service], *, shutdown_s: float, redis: RedisServer | None
        ) -> None:
            assert redis is not None
            assert redis.running()
            for service in [learner, *feeding]:
                seen[service.name] = service.environment.get("CUDA_VISIBLE_DEVICES", "as they are")
                assert service.environment[REDIS_URL_VARIABLE] == redis.url

        def run(self, *_: object) -> int:
            return INTERRUPTED

    monkeypatch.setattr(up, "Supervisor", Recording)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9,8,7,6,5,4,3")
    overrides = ["learner.ranks=2", "rollout.replicas=2", "rollout.tensor_parallel=2"]
    up.up(run(tmp_path, "device=cuda", "weights.type=nccl", *overrides))
    assert seen == {"learner": "9,8", "rollout-0": "7,6", "rollout-1": "5,4", "verifier": "as they are"}
