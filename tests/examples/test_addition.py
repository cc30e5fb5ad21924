import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from services.config.load import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "addition"
TINY = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "feed_forward": 32, "batch": 2}


@pytest.fixture(scope="module")
def make_example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_example", EXAMPLE / "make_example.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["make_example"] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    return module


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_training_and_held_out_problems_are_disjoint_and_right(make_example: ModuleType, tmp_path: Path) -> None:
    make_example.EXAMPLE.write_data(make_example.Recipe(), tmp_path)
    train, heldout = rows(tmp_path / "train.jsonl"), rows(tmp_path / "heldout.jsonl")
    assert (len(train), len(heldout)) == (7600, 500)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in heldout}
    for row in train + heldout:
        first, second = row["prompt"].rstrip("=").split("+")
        assert int(row["reference"][::-1]) == int(first) + int(second)
        assert row["grader"] == "exact"


def test_one_token_a_character_and_back(make_example: ModuleType, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    make_example.make_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.encode("27+45=")
    assert len(ids) == make_example.PROMPT_TOKENS
    assert tokenizer.decode(ids) == "27+45="
    assert tokenizer.decode([*tokenizer.encode("891"), tokenizer.eos_token_id, 0], skip_special_tokens=True) == "891"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (make_example.bundled.PAD, make_example.bundled.EOS)


@pytest.mark.parametrize("tied", [True, False])
def test_a_made_model_loads_as_described_and_is_not_made_twice(
    make_example: ModuleType, tmp_path: Path, tied: bool
) -> None:
    from transformers import AutoModelForCausalLM

    # Hardly trained: what is tested here is what is written.
    recipe = make_example.Recipe(tied=tied, **TINY, clean_until=0.0, slip_steps=1)
    assert make_example.EXAMPLE.make(recipe, tmp_path)
    written = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.model_type == "qwen2"
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert not make_example.EXAMPLE.make(recipe, tmp_path)
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == written
    assert make_example.EXAMPLE.make(replace(recipe, seed=1), tmp_path), "another recipe is made again"


def test_the_run_is_asynchronous_and_measured_on_held_out_problems() -> None:
    config = load(EXAMPLE / "addition.toml", [])
    assert config.learner.max_lag >= 2
    assert config.evaluation is not None
    assert config.evaluation.temperature == 1.0
    assert config.evaluation.prompts.source != config.prompts.source
    assert config.rollout.sampling.temperature == 1.0
