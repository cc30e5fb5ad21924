"""The example of a tool: what the model learned from is what a conversation with the calculator looks like."""

import asyncio
import random
from types import ModuleType

import pytest

from rollout.conversation.dialogue import Dialogue, Script
from rollout.environments import Subject, Turn
from rollout.environments.loading import environment_maker
from services.config.load import load
from services.config.run import RunConfig
from tests.examples.loading import EXAMPLES, load_example
from tests.examples.test_bundled import made

RECIPE = {"calls": 1.0, "slip": 0.0}


@pytest.fixture(scope="module")
def calculator() -> ModuleType:
    return load_example("calculator")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load(EXAMPLES / "calculator" / "calculator.toml", [])


def test_the_model_seldom_calls_and_is_seldom_right() -> None:
    told = made("calculator")
    called, right = told["heldout_called"], told["heldout_right"]
    assert isinstance(called, float)
    assert isinstance(right, float)
    assert 0.1 < called < 0.35
    assert 0.05 < right < called


def test_what_the_model_was_trained_on_is_what_a_conversation_looks_like(
    calculator: ModuleType, config: RunConfig
) -> None:
    tokenizer = calculator.make_tokenizer()
    script = Script(tokenizer, [tokenizer.eos_token_id], config.prompts)
    environment = environment_maker(config)()
    call = '[calculator(expression="38*47")]'

    async def talk() -> tuple[list[int], Turn]:
        start = await environment.reset(Subject(prompt="38*47=", reference="1786", options={}, row=0, seed=0))
        dialogue = Dialogue(script, start.messages, start.tools)
        turn = await environment.step({"role": "assistant", "content": call})
        given, restarts = dialogue.go_on(call, True, turn.messages)
        assert not restarts
        last = await environment.step({"role": "assistant", "content": "1786"})
        await environment.close()
        tokens = [*dialogue.token_ids, *tokenizer.encode(call), tokenizer.eos_token_id, *given]
        return [*tokens, *tokenizer.encode("1786"), tokenizer.eos_token_id], last

    tokens, last = asyncio.run(talk())
    taught = calculator.conversation((38, 47), calculator.Recipe(**RECIPE), random.Random(0), slips=True)
    assert [token for token, _ in taught] == tokens
    assert last == Turn(done=True)
    assert config.model.max_length > len(tokens)
    assert config.rollout.sampling.max_tokens >= sum(own for _, own in taught)


def test_what_the_tool_says_of_a_wrong_call_is_one_token(calculator: ModuleType) -> None:
    tokenizer = calculator.make_tokenizer()
    assert tokenizer.encode("Error: '1*' is not an expression\nat all") == [tokenizer.unk_token_id]
