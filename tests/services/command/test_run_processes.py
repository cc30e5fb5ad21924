"""Which processes a run consists of, and what each is given; nothing here starts them."""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from services.command import run_processes
from services.command.redis_server import RedisServer
from services.command.run_processes import write_settings
from services.command.supervisor import Service
from services.command.up import up
from services.config.load import load
from services.config.rollout import SHARED_CACHE_GIB
from services.entry import INTERRUPTED, REDIS_URL_VARIABLE
from services.run.folder import RunFolder
from services.run.step_in_hand import StepInHand, StepInHandFile
from tests.services.command.running import run

pytestmark = pytest.mark.usefixtures("no_preflight")


@pytest.mark.parametrize(("url", "mode"), [("redis://:s3cr3t@host:1/0", 0o600), ("redis://host:1/0", 0o644)])
def test_settings_with_a_password_are_for_this_user_alone(tmp_path: Path, url: str, mode: int) -> None:
    config = run(tmp_path, f'redis.url="{url}"')
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    folder.settings.touch(mode=0o644)  # as an earlier start left it
    before = os.umask(0o022)
    try:
        write_settings(config, folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.settings.stat().st_mode) == mode
    assert load(folder.settings) == config


def test_every_service_sees_its_own_gpus_and_the_supervisor_watches_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record_gpus(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9,8,7,6,5,4,3")
    overrides = ["learner.ranks=2", "rollout.replicas=2", "rollout.tensor_parallel=2"]
    up(run(tmp_path, "device=cuda", "weights.type=nccl", *overrides))
    assert seen == {"learner": "9,8", "rollout-0": "7,6", "rollout-1": "5,4", "verifier": "as they are"}


def test_one_gpu_is_for_learner_and_replica_and_the_engine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record_gpus(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    config = run(tmp_path, "device=cuda")
    up(config)
    assert seen == {"learner": "7", "rollout-0": "7", "verifier": "as they are"}
    assert load(RunFolder(config.folder).settings).rollout.kv_cache_gib == SHARED_CACHE_GIB


def record_gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Instead of starting services: the GPUs that each would see, filled in by `up`."""
    seen: dict[str, str] = {}

    class Recording:
        def __init__(
            self,
            learner: Service,
            feeding: Sequence[Service],
            *,
            shutdown_s: float,
            redis: RedisServer | None,
            progress: Callable[[], object],
            tries: Callable[[], str],
        ) -> None:
            assert progress() == progress()
            assert tries() == ""
            assert redis is not None
            assert redis.running()
            for service in [learner, *feeding]:
                seen[service.name] = service.environment.get("CUDA_VISIBLE_DEVICES", "as they are")
                assert service.environment[REDIS_URL_VARIABLE] == redis.url

        def run(self, *_: object) -> int:
            return INTERRUPTED

    monkeypatch.setattr(run_processes, "Supervisor", Recording)
    return seen


def test_what_the_learner_finds_out_of_a_group_that_kills_it_is_progress_once_a_step_was_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    file = StepInHandFile(folder.step_in_hand)
    before = run_processes.progress(folder)
    trial = StepInHand(step=7, groups=(1, 2), parts=((1, 2), (3,)), deaths={1: 2, 2: 2, 3: 2})
    file.write(trial, durable=False)
    assert run_processes.progress(folder) == before  # nothing that kills the first step is the fault of a group
    assert run_processes.tries(folder) == ""
    folder.steps.write_text("{}")
    with_a_step = run_processes.progress(folder)
    assert run_processes.tries(folder) == "step 7 with 2 of the groups that may have killed it"
    file.write(StepInHand(parts=((3,), (1,), (2,)), deaths=trial.deaths), durable=False)
    assert run_processes.progress(folder) != with_a_step
    assert run_processes.tries(folder) == ""  # no step was in hand
    file.close()
    folder.step_in_hand.write_text("?")
    assert run_processes.tries(folder) == ""
