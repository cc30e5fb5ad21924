"""What `ratchet up` does with the run's folder and says at the end; nothing here starts an engine or a learner."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from services.command.early_start import EarlyProcess
from services.command.evaluate import evaluate
from services.command.run_processes import NONE_EARLY, RunRedis
from services.command.up import up
from services.config import RunConfig
from services.entry import DONE, INTERRUPTED
from services.errors import InputError
from services.run.checkpoint_names import checkpoint_name
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from tests.services.command.running import Recording, in_use, run

pytestmark = pytest.mark.usefixtures("no_preflight")


def test_a_run_does_not_train_in_the_folder_of_an_evaluation(tmp_path: Path) -> None:
    """Its checkpoints are those of another run."""
    evaluate(run(tmp_path), tmp_path, Recording())
    with pytest.raises(InputError, match=r"try\.eval is the folder of a `ratchet eval`"):
        up(run(tmp_path, "name=try.eval"), Recording())


def test_a_run_leaves_another_one_its_folder(tmp_path: Path) -> None:
    config = run(tmp_path)
    with in_use(config.folder), pytest.raises(InputError, match=r"try is in use by another"):
        up(config, Recording())


def test_a_finished_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    started = Recording()
    (folder.checkpoints / checkpoint_name(config.learner.steps)).mkdir(parents=True)
    folder.export.mkdir()
    folder.summary.touch()
    assert up(config, started) == DONE
    assert not started.seen
    assert "is finished; raise learner.steps to go on" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("checkpoints", "steps", "said"),
    [
        ([], 0, "stopped before the first checkpoint; the same command starts from the beginning."),
        ([], 3, "stopped before the first checkpoint; the same command starts from the beginning."),
        ([10, 20], 20, "stopped; the same command resumes from the checkpoint of step 20."),
        ([10, 20], 23, "resumes from the checkpoint of step 20, and repeats the 3 steps after it."),
        ([10], 0, "stopped; the same command resumes from the checkpoint of step 10."),
    ],
)
def test_a_run_that_is_stopped_says_what_there_is_to_go_on_from(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    checkpoints: list[int],
    steps: int,
    said: str,
) -> None:
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    for version in checkpoints:
        (folder.checkpoints / checkpoint_name(version)).mkdir(parents=True)
    with JsonLines(folder.steps) as lines:
        for step in range(steps):
            lines.write(step=step + 1, attempt=1)
    assert up(config, Recording()) == INTERRUPTED
    assert said in capsys.readouterr().out


def test_queues_that_are_left_without_a_checkpoint_are_emptied(tmp_path: Path) -> None:
    """Otherwise the learner would wait for groups that an earlier start has settled, without end."""
    config = run(tmp_path)
    counted: list[int] = []

    def supervise(
        config: RunConfig,
        redis: RunRedis,
        console: Console,
        learner_options: Sequence[str] = (),
        known: Sequence[str] = (),
        early: Mapping[str, EarlyProcess] = NONE_EARLY,
    ) -> int:
        connection = RedisConnection(redis.url)
        log = RedisIssueLog(connection, RedisStream(connection, config.name, "prompts", "learner", 60.0))
        counted.append(log.issued_count())
        log.issue(log.issued_count(), b"a prompt")
        connection.close()
        return INTERRUPTED

    up(config, supervise)
    up(config, supervise)
    (RunFolder(config.folder).checkpoints / checkpoint_name(2)).mkdir(parents=True)
    up(config, supervise)
    assert counted == [0, 0, 1]
