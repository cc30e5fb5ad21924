import asyncio
import json

import pytest
from ratchet_environment_calculator import TOOL, Calculator, compute

from rollout.environments import Subject, Turn

PROBLEM = Subject(prompt="What is 12 * 7?", reference="84", options={}, row=0, seed=0)


def called(expression: object) -> str:
    return f"<tool_call>{json.dumps({'name': 'calculator', 'arguments': {'expression': expression}})}</tool_call>"


def talk(*messages: str, calls: int = 4) -> list[Turn]:
    async def conversation() -> list[Turn]:
        environment = Calculator(calls=calls)
        start = await environment.reset(PROBLEM)
        assert (list(start.messages), list(start.tools)) == (PROBLEM.messages, [TOOL])
        turns = [await environment.step({"role": "assistant", "content": text}) for text in messages]
        await environment.close()
        return turns

    return asyncio.run(conversation())


def test_a_call_is_computed_and_an_answer_ends_the_conversation() -> None:
    first, last = talk(called("12 * 7"), "It is 84.")
    assert first == Turn([{"role": "tool", "content": "84"}])
    assert last == Turn(done=True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (called("1 / 0"), "division"),
        (called("2 ** 9"), "only numbers"),
        (called("__import__('os')"), "only numbers"),
        (called("12 *"), "not an expression"),
        (called(12), "at most 200 characters"),
        (called("9" * 19), "too large"),
        (called("(" * 150), "not an expression"),
        ("<tool_call>calculator(3)</tool_call>", "a call is"),
    ],
)
def test_a_wrong_call_is_answered_in_words_and_counted(call: str, said: str) -> None:
    (turn,) = talk(call)
    assert said in turn.messages[0]["content"]
    assert (turn.done, turn.reward, turn.info) == (False, None, {"tool_errors": ["calculator"]})


def test_calls_run_out() -> None:
    *_, last = talk(called("1+1"), called("1+1"), calls=1)
    assert "No calls are left" in last.messages[0]["content"]


def test_expressions_have_their_values() -> None:
    assert [compute(text) for text in ("1 + 2 * 3", "-(4 - 1) / 2", "1e3")] == [7, -1.5, 1000]
