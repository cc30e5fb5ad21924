"""What the bundled examples share: the models that come with the project, their data, and how they are trained."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from services.command.preflight import check
from services.config.load import load
from services.config.prompts import ReasoningGymSource
from tests.examples.loading import EXAMPLES, load_example

RECIPES = ("addition", "calculator", "guessing", "spelling", "two_sources")
LARGEST_MODEL_BYTES = 3_300_000  # it ships with the project
TINY = {"layers": 1, "width": 16, "heads": 1, "kv_heads": 1, "feed_forward": 16, "batch": 4}

RUN_FILES = sorted(path for path in EXAMPLES.glob("*/*.toml") if path.name != "pyproject.toml")


@pytest.fixture(scope="module")
def bundled() -> ModuleType:
    load_example("addition")
    return sys.modules["bundled"]


def made(folder: str) -> dict[str, object]:
    told: dict[str, object] = json.loads((EXAMPLES / folder / "model" / "made.json").read_text(encoding="utf-8"))
    return told


@pytest.mark.parametrize("folder", RECIPES)
def test_the_model_that_comes_with_the_project_is_that_of_the_recipe(folder: str, tmp_path: Path) -> None:
    example, model = load_example(folder), EXAMPLES / folder / "model"
    assert (model / "model.safetensors").stat().st_size < LARGEST_MODEL_BYTES
    (tmp_path / "model").symlink_to(model)
    assert not example.EXAMPLE.make(example.Recipe(), tmp_path), "it would be trained again"


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_the_runs_are_asynchronous_and_measured_on_other_problems_at_the_temperature_of_sampling(path: Path) -> None:
    config = load(path, [])
    assert config.learner.max_lag >= 2
    assert config.evaluation is not None
    assert config.evaluation.temperature == config.rollout.sampling.temperature == 1.0
    trained = [one.source for one in config.prompts.by_place("prompts").values()]
    held_out = [one.source for one in config.evaluation.prompts.by_place("evaluation.prompts").values()]
    assert not any(source in trained for source in held_out)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_no_run_file_has_what_ratchet_warns_of(path: Path) -> None:
    config = load(path, [])
    if isinstance(config.prompts.source, ReasoningGymSource):
        pytest.importorskip("reasoning_gym")
    assert check(config, quick=True).warnings == []


@pytest.mark.parametrize("folder", ["calculator", "guessing"])
def test_training_and_held_out_problems_are_disjoint(folder: str, tmp_path: Path) -> None:
    example = load_example(folder)
    example.EXAMPLE.write_data(example.Recipe(), tmp_path)
    train, heldout = (
        [tuple(json.loads(line).values()) for line in (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("train", "heldout")
    )
    assert len(heldout) == len(example.problems(example.Recipe())[1]) > 100
    assert not {row[0] for row in train} & {row[0] for row in heldout}, "prompts are shared"
    assert len({*train, *heldout}) == len(train) + len(heldout)


@pytest.mark.parametrize("folder", ["calculator", "guessing", "spelling"])
def test_a_model_is_made_as_described_and_not_twice(folder: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    example = load_example(folder)
    recipe = example.Recipe(clean_until=0.0, slip_steps=1, **TINY)
    assert example.EXAMPLE.make(recipe, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "model"))
    assert not example.EXAMPLE.make(recipe, tmp_path)


def test_data_of_another_recipe_are_written_again(tmp_path: Path) -> None:
    example = load_example("guessing")
    train, recipe = tmp_path / "train.jsonl", example.Recipe()
    example.EXAMPLE.write_data(recipe, tmp_path)
    right, written = train.read_bytes(), train.stat().st_mtime_ns
    example.EXAMPLE.write_data(recipe, tmp_path)
    assert train.stat().st_mtime_ns == written, "what is right is left alone"
    train.write_text("{}\n", encoding="utf-8")
    example.EXAMPLE.write_data(recipe, tmp_path)
    assert train.read_bytes() == right


def test_slips_replace_digits_of_the_response_alone(bundled: ModuleType) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.tensor([[5, 6, 7, bundled.EOS, bundled.PAD]] * 200)
    slipped = bundled.with_slips(rows, 0.5, prompt_tokens=2, draw=draw)
    assert torch.equal(slipped[:, [0, 1, 3, 4]], rows[:, [0, 1, 3, 4]])
    assert 60 < int((slipped[:, 2] != 7).sum()) < 120


def test_only_what_is_to_be_learned_has_a_label(bundled: ModuleType) -> None:
    tokens, labels = bundled.padded([[(5, False), (6, True)], [(7, True)]])
    assert tokens.tolist() == [[5, 6], [7, bundled.PAD]]
    assert labels.tolist() == [[bundled.IGNORED, 6], [7, bundled.IGNORED]]
    assert bundled.labels_of(torch.tensor([[5, 6, bundled.PAD]]), 1).tolist() == [[bundled.IGNORED, 6, bundled.IGNORED]]


def test_a_model_that_does_not_learn_is_given_up(bundled: ModuleType) -> None:
    example = load_example("addition")
    recipe = example.Recipe(max_steps=2, clean_until=1.1, layers=1, width=16, heads=1, kv_heads=1, feed_forward=16)
    with pytest.raises(SystemExit, match="did not learn the task in 2 steps: change --seed"):
        example.make_model(recipe)
