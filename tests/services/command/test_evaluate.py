"""What `ratchet eval` does with folders; nothing here starts an engine or a learner."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from services.command.early_start import EarlyProcess
from services.command.evaluate import evaluate
from services.command.run_processes import NONE_EARLY, RunRedis
from services.config import RunConfig
from services.entry import DONE, INTERRUPTED
from services.errors import InputError, ServiceFailed
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from tests.services.command.running import Recording, in_use, run

pytestmark = pytest.mark.usefixtures("no_preflight")


def test_an_evaluation_begins_with_an_empty_folder_and_leaves_the_checkpoints_alone(tmp_path: Path) -> None:
    config = run(tmp_path)
    started = Recording()
    saved = RunFolder(config.folder).checkpoints / "step-00000004"
    saved.mkdir(parents=True)
    for _ in range(2):
        assert evaluate(config, None, started) == INTERRUPTED
    assert started.seen[0] == started.seen[1]
    assert "left-over" not in started.seen[1]
    assert "checkpoints" in started.seen[1]
    assert saved.is_dir()


def test_an_evaluation_leaves_a_running_one_its_folder(tmp_path: Path) -> None:
    config = run(tmp_path)
    evaluate(config, tmp_path, Recording())
    with in_use(tmp_path / "runs" / "try.eval"), pytest.raises(InputError, match=r"try\.eval is in use by another"):
        evaluate(config, tmp_path, Recording())
    assert (tmp_path / "runs" / "try.eval" / "left-over").exists()


def test_an_evaluation_does_not_delete_a_run_of_that_name(tmp_path: Path) -> None:
    started = Recording()
    steps = RunFolder(run(tmp_path, "name=try.eval").folder).steps
    with JsonLines(steps) as lines:
        lines.write(step=1)
    with pytest.raises(InputError, match=r"try\.eval is where this evaluation would go.*Move it away"):
        evaluate(run(tmp_path), tmp_path, started)
    assert steps.exists()
    assert not started.seen


def test_a_run_without_a_checkpoint_has_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint to evaluate; give a model folder with --model"):
        evaluate(run(tmp_path), None, Recording())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "the learner ended without one"),
        ([{"prompts": 3}, {"prompts": 0, "missing": 7}], "none of the 7 held-out prompts came back"),
    ],
)
def test_an_evaluation_without_a_result_has_failed(tmp_path: Path, rows: list[dict[str, int]], why: str) -> None:
    def learner(
        config: RunConfig,
        redis: RunRedis,
        console: Console,
        learner_options: Sequence[str] = (),
        known: Sequence[str] = (),
        early: Mapping[str, EarlyProcess] = NONE_EARLY,
    ) -> int:
        with JsonLines(RunFolder(config.folder).evaluations) as lines:
            for version, row in enumerate(rows):
                lines.write(attempt=1, policy_version=version, k=0, avg_at_k=math.nan, pass_at_k=math.nan, **row)
        return DONE

    with pytest.raises(ServiceFailed, match=f"the evaluation has no result: {why}.*verifier.log"):
        evaluate(run(tmp_path), tmp_path, learner)


def test_an_evaluation_with_a_result_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def learner(
        config: RunConfig,
        redis: RunRedis,
        console: Console,
        learner_options: Sequence[str] = (),
        known: Sequence[str] = (),
        early: Mapping[str, EarlyProcess] = NONE_EARLY,
    ) -> int:
        with JsonLines(RunFolder(config.folder).evaluations) as lines:
            lines.write(attempt=1, policy_version=0, k=4, avg_at_k=0.25, pass_at_k=0.5, prompts=2, missing=1)
        return DONE

    assert evaluate(run(tmp_path), tmp_path, learner) == DONE
    assert "avg@4 0.2500, pass@4 0.5000 on 2 held-out prompts" in capsys.readouterr().out
