import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from services.config.load import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "programs"
TINY = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "feed_forward": 32, "batch": 2}
LARGEST_MODEL_BYTES = 3_000_000  # it ships with the project


@pytest.fixture(scope="module")
def programs() -> Iterator[ModuleType]:
    specification = importlib.util.spec_from_file_location("make_programs", EXAMPLE / "make_example.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))  # make_model.py lies beside it
        patch.setitem(sys.modules, "make_programs", module)  # its dataclass looks itself up there
        specification.loader.exec_module(module)
        yield module
        del sys.modules["make_model"]


@pytest.fixture(scope="module")
def data(programs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    programs.EXAMPLE.write_data(programs.Recipe(), folder)
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def every_problem(programs: ModuleType) -> list[Any]:
    training, heldout = programs.problems()
    return [*training, *heldout]


def passes(program: str, reference: dict[str, Any]) -> bool:
    names: dict[str, Any] = {}
    exec(program, names)
    function = names[reference["entry_point"]]
    return all(function(*test["args"]) == test["expected"] for test in reference["tests"])


def test_training_and_held_out_problems_are_disjoint_and_graded_as_code(data: Path) -> None:
    train, heldout = rows(data / "train.jsonl"), rows(data / "heldout.jsonl")
    assert (len(train), len(heldout)) == (592, 128)
    assert len({row["prompt"] for row in train + heldout}) == 592 + 128
    for row in train + heldout:
        assert row["grader"] == "code"
        assert row["reference"]["kind"] == "function"
        assert 3 <= len(row["reference"]["tests"]) <= 5


def test_the_data_is_the_same_each_time(programs: ModuleType, data: Path, tmp_path: Path) -> None:
    programs.reference.cache_clear()
    programs.EXAMPLE.write_data(programs.Recipe(), tmp_path)
    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes()


def test_every_solution_that_is_taught_passes_the_tests(programs: ModuleType) -> None:
    for problem in every_problem(programs):
        reference = programs.reference(problem)
        for program in programs.solutions(problem):
            assert passes(program, reference), (programs.question(problem), program)


def test_a_program_that_leaves_out_swaps_or_replaces_a_step_passes_only_when_it_means_the_same(
    programs: ModuleType,
) -> None:
    draw = Random(0)
    for problem in draw.sample(every_problem(programs), 100):
        reference = programs.reference(problem)
        inputs = [[draw.randint(-9, 9) for _ in range(draw.randint(4, 6))] for _ in range(40)]
        for neighbor in programs.neighbors(problem):
            if all(programs.run(neighbor, test["args"][0]) == test["expected"] for test in reference["tests"]):
                for given in inputs:
                    assert programs.run(neighbor, given) == programs.run(problem, given), programs.question(problem)


def test_programs_and_prompts_survive_the_tokenizer_and_fit(programs: ModuleType) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "model")
    config = load(EXAMPLE / "programs.toml", [])
    draw = Random(0)
    sample = draw.sample(every_problem(programs), 200)
    for problem, lesson in zip(sample, programs.lessons(sample), strict=True):
        assert tokenizer.encode(programs.question(problem)) == lesson.prompt
        for program, taught in zip(programs.solutions(problem), lesson.right, strict=True):
            assert tokenizer.encode(program) == taught
            assert tokenizer.decode([*taught, tokenizer.eos_token_id], skip_special_tokens=True) == program
            assert len(taught) < config.rollout.sampling.max_tokens
        assert max([*lesson.slipped(draw), *lesson.prompt]) < len(tokenizer) - 1, "no unknown token is taught"
        assert len(lesson.prompt) + config.rollout.sampling.max_tokens <= config.model.max_length


def test_the_model_that_ships_is_of_this_recipe_and_small(programs: ModuleType) -> None:
    from transformers import AutoModelForCausalLM

    made = json.loads((EXAMPLE / "model" / "made.json").read_text(encoding="utf-8"))
    assert made["recipe"] == programs.EXAMPLE.digest(programs.Recipe())
    assert sum(path.stat().st_size for path in (EXAMPLE / "model").iterdir()) < LARGEST_MODEL_BYTES
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE / "model")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.eos_token_id == programs.bundled.EOS


def test_every_token_is_taught_and_no_two_are_the_same(programs: ModuleType) -> None:
    texts = [text for p in every_problem(programs) for text in (programs.question(p), *programs.solutions(p))]
    used = {piece for text in texts for piece in programs.split(text)}
    assert len(set(programs.TOKENS)) == len(programs.TOKENS)
    assert used <= set(programs.TOKENS)
    assert set(programs.TOKENS) - used <= set("6789="), "signs that only a slip has"


def test_a_model_is_made_once_for_each_recipe(programs: ModuleType, tmp_path: Path) -> None:
    # Hardly trained: what is tested here is what is written.
    recipe = programs.Recipe(**TINY, clean_until=0.0, slip_steps=1)
    assert programs.EXAMPLE.make(recipe, tmp_path)
    written = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert not programs.EXAMPLE.make(recipe, tmp_path)
    assert programs.EXAMPLE.make(replace(recipe, seed=1), tmp_path), "another recipe is made again"
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != written
    assert programs.EXAMPLE.make(recipe, tmp_path)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == written, "the same seed makes the same model"


def test_the_run_is_asynchronous_and_measured_on_held_out_problems() -> None:
    config = load(EXAMPLE / "programs.toml", [])
    assert config.prompts.grader == "code"
    assert config.learner.max_lag >= 2
    assert config.evaluation is not None
    assert config.evaluation.temperature == 1.0
    assert config.evaluation.prompts.source != config.prompts.source
    assert config.rollout.sampling.temperature == 1.0
