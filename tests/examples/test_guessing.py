"""The guessing game: what the model learned from is what a conversation with the environment looks like."""

import itertools
import random
from types import ModuleType

import pytest

from rollout.conversation.dialogue import Dialogue, Script
from services.config.load import load
from services.config.prompts import PromptsConfig
from tests.examples.loading import EXAMPLES, load_example
from tests.examples.test_bundled import made

NUMBERS = "12-18-33-40-58-71-90"


@pytest.fixture(scope="module")
def guessing() -> ModuleType:
    return load_example("guessing")


def test_the_model_wins_few_games() -> None:
    won = made("guessing")["heldout_won"]
    assert isinstance(won, float)
    assert 0.1 < won < 0.25


@pytest.mark.parametrize("slip", [0.0, 0.5])
def test_games_are_those_that_the_environment_plays(guessing: ModuleType, slip: float) -> None:
    draw = random.Random(0)
    for problem in guessing.problems(guessing.Recipe())[1]:
        prompt, *said = guessing.game(problem, draw, halve=0.5, slip=slip)
        guesses, hints = said[::2], said[1::2]
        assert [int(number) for number in prompt.split("-")] == sorted(set(problem[0]))
        assert all(
            hint == (">" if int(guess) < problem[1] else "<") for guess, hint in zip(guesses, hints, strict=False)
        )
        assert len(hints) == len(guesses) - 1
        assert int(guesses[-1]) == problem[1] or len(guesses) == guessing.GUESSES


def test_a_player_without_slips_guesses_what_the_hints_leave(guessing: ModuleType) -> None:
    draw = random.Random(0)
    for problem in guessing.problems(guessing.Recipe())[1]:
        _, *said = guessing.game(problem, draw, halve=0.5, slip=0.0)
        above, below = 0, 100
        for guess, hint in itertools.zip_longest(map(int, said[::2]), said[1::2]):
            assert guess in problem[0]
            assert above < guess < below
            above, below = (guess, below) if hint == ">" else (above, guess)


def test_halving_wins_every_game(guessing: ModuleType) -> None:
    for problem in guessing.problems(guessing.Recipe())[1]:
        assert int(guessing.game(problem, random.Random(0), halve=1.0, slip=0.0)[-1]) == problem[1]


def test_what_the_model_was_trained_on_is_what_a_conversation_looks_like(guessing: ModuleType) -> None:
    tokenizer = guessing.make_tokenizer()
    settings = PromptsConfig.model_validate({"source": {"type": "jsonl", "path": "rows.jsonl"}})
    script = Script(tokenizer, [tokenizer.eos_token_id], settings)
    dialogue = Dialogue(script, [{"role": "user", "content": NUMBERS}], [])
    given, restarts = dialogue.go_on("40", True, [{"role": "user", "content": ">"}])
    assert not restarts
    tokens = [*dialogue.token_ids, *tokenizer.encode("40"), tokenizer.eos_token_id, *given]
    assert [token for token, _ in guessing.encoded([NUMBERS, "40", ">", "71"])][: len(tokens)] == tokens


def test_the_longest_game_fits(guessing: ModuleType) -> None:
    config = load(EXAMPLES / "guessing" / "guessing.toml", [])
    assert config.environment is not None
    assert config.environment.options["guesses"] == config.environment.max_turns == guessing.GUESSES
    longest = guessing.encoded([NUMBERS, "40", ">", "71", "<", "58"])
    assert config.model.max_length > len(longest)
    assert config.rollout.sampling.max_tokens >= sum(own for _, own in longest)
