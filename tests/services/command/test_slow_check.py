"""The slow part of the check says the same whoever does it."""

from pathlib import Path

import pytest
from transformers import Qwen2Config

from services.command import preflight, slow_check
from services.command.run_processes import looked_by, start_early
from services.config.load import load
from services.errors import InputError
from tests.architectures import SIZES, randomized


@pytest.fixture
def run_file(small_data: Path) -> Path:
    """A run that can be started, on rows of which a grader cannot judge one."""
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}  # of 32, which the engine on a CPU takes
    randomized(Qwen2Config(**SIZES | heads)).save_pretrained(small_data / "model")
    with (small_data / "train.jsonl").open("a", encoding="utf-8") as rows:
        rows.write('{"prompt": "1+2=", "reference": "three"}\n')
    return small_data / "run.toml"


def test_the_learners_process_finds_what_this_one_finds(run_file: Path) -> None:
    config = load(run_file, [f"runs_folder={run_file.parent}/runs", "prompts.skip_unreadable=true"])
    with start_early(config) as early:
        early["rollout-0"].cancel()  # only the learner is asked
        found = looked_by(early)(config)
        assert early["learner"].is_waiting()
    assert found == slow_check.look(config)
    assert found.fault is None
    assert found.ungradable == {"prompts": [2]}
    checked = preflight.check(config, slow=lambda config: found)
    problems, rows = checked.left_out["prompts"]
    assert [problems[row].reference for row in rows] == ["three"]


def test_what_it_finds_wrong_is_refused_here(run_file: Path) -> None:
    config = load(run_file, [f"runs_folder={run_file.parent}/runs", f"model.path={run_file.parent}/nowhere"])
    said = slow_check.answer(config)  # as the learner's process sends it
    with pytest.raises(InputError, match=r"model\.path: no folder .*nowhere"):
        preflight.check(config, slow=lambda config: slow_check.answered(said) or slow_check.Looked())


def test_without_an_answer_it_is_done_here(run_file: Path) -> None:
    config = load(run_file, [f"runs_folder={run_file.parent}/runs", "prompts.skip_unreadable=true"])
    assert looked_by({})(config) == slow_check.look(config)
    assert slow_check.answered(b"") is None
