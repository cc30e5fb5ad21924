import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rollout.conversation.dialogue import Dialogue, Script
from services.config.load import load
from services.config.prompts import PromptsConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "guessing"


@pytest.fixture(scope="module")
def make_example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("make_guessing", EXAMPLE / "make_example.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["make_guessing"] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    return module


def test_the_bundled_model_is_that_of_the_recipe(make_example: ModuleType) -> None:
    made = json.loads((EXAMPLE / "model" / "made.json").read_text(encoding="utf-8"))
    assert made["recipe"] == make_example.recipe_hash(make_example.Recipe())
    assert 0.15 < made["solved"] < 0.3


def test_games_are_those_that_the_environment_plays(make_example: ModuleType) -> None:
    draw, recipe = random.Random(0), make_example.Recipe()
    for number in make_example.NUMBERS:
        said, won = make_example.game(number, recipe, draw)
        guesses, hints = said[1::2], said[2::2]
        assert all(hint == (">" if int(guess) < number else "<") for guess, hint in zip(guesses, hints, strict=False))
        assert won == (int(guesses[-1]) == number)
        assert len(guesses) <= make_example.GUESSES


def test_what_the_model_was_trained_on_is_what_a_conversation_looks_like(make_example: ModuleType) -> None:
    tokenizer = make_example.make_tokenizer()
    settings = PromptsConfig.model_validate({"source": {"type": "jsonl", "path": "rows.jsonl"}})
    dialogue = Dialogue(Script(tokenizer, [tokenizer.eos_token_id], settings), [{"role": "user", "content": "?"}], [])
    given, restarts = dialogue.go_on("08", True, [{"role": "user", "content": ">"}])
    assert not restarts
    assert (tokenizer.decode(dialogue.token_ids), tokenizer.decode(given)) == ("?:", ">:")
    assert len(given) + 3 == 1 + make_example.TURN_TOKENS


def test_the_longest_game_fits_and_the_run_is_asynchronous(make_example: ModuleType) -> None:
    config = load(EXAMPLE / "guessing.toml", [])
    assert config.environment is not None
    assert config.environment.options["guesses"] == config.environment.max_turns == make_example.GUESSES
    assert config.model.max_length >= (1 + make_example.TURN_TOKENS) * make_example.GUESSES
    assert config.learner.max_lag >= 2
