"""Tools in a conversation as a replica holds it, and as `ratchet config` begins one."""

import asyncio
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from rollout.conversation.check import Tried, check
from rollout.conversation.conversations import HeldGroup
from rollout.environments.loading import environment_maker
from services.errors import InputError
from tests.fakes.talking_engine import TalkingEngine
from tests.fakes.tokenizers import tokenizer_of
from tests.rollout.conversation.talking import conversations, message, prompt, run_config
from tests.rollout.environments.tools.talk import PROBLEM, call

SERVER = str(Path(__file__).with_name("mcp_server.py"))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_what_is_read_between_two_calls_is_the_tools_and_calls_are_counted() -> None:
    config = run_config(name="tools", tools=[{"type": "calculator", "seconds": 1.0}])
    says = [call("calculator", expression="12 * 7"), "<tool_call>oh</tool_call>", "it is 84"]
    asked: dict[str, int] = {}

    def next_of(own: str) -> list[int]:
        asked[own] = asked.get(own, 0) + 1
        return message(says[asked[own] - 1])

    async def scenario() -> HeldGroup:
        talks = conversations(environment_maker(config), config)
        try:
            return await talks.sample(prompt(grader="number"), TalkingEngine(lambda own: next_of(own.group_id)).sample)
        finally:
            await talks.stop()

    before = counted("ratchet_rollout_tool_errors_total", tool="unreadable")
    took = counted("ratchet_rollout_tool_seconds_count", tool="calculator")
    group = asyncio.run(scenario())
    decode = tokenizer_of("chatml").decode
    assert '"name": "calculator"' in decode(group.prompt.token_ids.numpy().tolist())
    for one in group.trajectories:
        assert one.token_ids.numpy().tolist() == [token for text in says for token in message(text)]
        given = [decode(turn.given.numpy().tolist()) for turn in one.turns]
        assert "<|im_start|>tool\n84<|im_end|>" in given[1]
        assert "Error: this call cannot be read" in given[2]
        assert (one.finish_reason, one.reward) == ("stop", None)
    assert counted("ratchet_rollout_tool_errors_total", tool="unreadable") - before == 4
    assert counted("ratchet_rollout_tool_seconds_count", tool="calculator") - took == 4


def test_what_only_a_beginning_shows_is_named_before_the_run() -> None:
    pytest.importorskip("mcp")
    server = {"type": "mcp", "command": [sys.executable, SERVER], "only": ["fly"]}
    config = run_config(name="tools", tools=[server], turn_s=60.0)
    with pytest.raises(InputError, match=r"environment.tools.0.only: the server has no tool fly"):
        check(config, [Tried(PROBLEM, "number", "row 0")])
