"""Environments behind a server of the real package `openenv`: the policy acts in them by a field, by one tool, and by theirs."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.conversation.check import Tried, check
from rollout.conversation.conversations import ConversationFailed, HeldGroup
from rollout.environments import Subject
from services.errors import InputError
from services.wire.trajectory import check_turns
from tests.rollout.conversation.talking import run_config
from tests.rollout.environments.agent.test_environment import hold, text
from tests.rollout.environments.other_pythons import python_of

PYTHON = python_of("openenv")
SERVER = str(Path(__file__).with_name("server.py"))
START_S = 60.0


@contextmanager
def served(kind: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([PYTHON, SERVER, kind, str(port)], start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + START_S
        while True:
            try:
                httpx.get(f"{url}/health", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None
                assert time.monotonic() < until, "the server of OpenEnv did not start"
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def guessing() -> Iterator[str]:
    with served("guess") as url:
        yield url


def held(*texts: str, **options: Any) -> HeldGroup:
    return hold("openenv", *texts, grader="environment", **options)[0]


def act(**arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': 'act', 'arguments': arguments})}</tool_call>"


def given(group: HeldGroup) -> list[list[str]]:
    return [[text(turn.given) for turn in one.turns[1:]] for one in group.trajectories]


def test_the_action_is_a_tool_by_the_schema_of_the_server(guessing: str) -> None:
    group = held(act(number=3), act(number=7), url=guessing)
    begun = text(group.prompt.token_ids)
    assert '"name": "act"' in begun
    assert '"number"' in begun
    assert '"metadata"' not in begun
    assert '{"hint": "guess a number, seed 0"}' in begun
    for one, answers in zip(group.trajectories, given(group), strict=True):
        check_turns(one)
        assert '{"hint": "higher"}' in answers[0]
        assert one.reward == pytest.approx(0.9)


def test_what_is_no_action_is_said_to_the_policy(guessing: str) -> None:
    for answers in given(held(act(number="x"), "<tool_call>3</tool_call>", "I give up", url=guessing)):
        assert re.search("Error: Invalid message .*number: Input should be a valid integer", answers[0])
        assert "this call cannot be read" in answers[1]


def test_a_policy_that_does_not_act_has_earned_what_it_has(guessing: str) -> None:
    assert {one.reward for one in held("I do not know", url=guessing).trajectories} == {0.0}
    assert {one.reward for one in held(act(number=3), "seven", url=guessing).trajectories} == {-0.1}


def test_a_message_is_a_field_of_the_action_and_an_observation_one_of_its_fields() -> None:
    with served("words") as url:
        group = held("hello", "bye", url=url, action="text", observation="hint")
        assert "guess a number" in text(group.prompt.token_ids)
        assert {one.reward for one in group.trajectories} == {1.0}
        assert {"HELLO" in answers[0] for answers in given(group)} == {True}
        with pytest.raises(InputError, match=r'options.action = "word": .* it has text'):
            checked(url=url, action="word")
        with pytest.raises(InputError, match=r'options.observation = "x": .* it has hint'):
            checked(url=url, action="text", observation="x")
        # four sessions, and eight conversations
        with pytest.raises(ConversationFailed, match="raise max_concurrent_envs of the server"):
            held("hello", "bye", url=url, action="text", group_size=8)


def test_tools_of_an_environment_that_speaks_mcp_are_the_policys() -> None:
    with served("tools") as url:
        add = f"<tool_call>{json.dumps({'name': 'add', 'arguments': {'a': 3, 'b': 4}})}</tool_call>"
        group = held(add, "it is seven", url=url)
        assert '"name": "add"' in text(group.prompt.token_ids)
        assert {"7" in answers[0] for answers in given(group)} == {True}


def checked(**options: Any) -> list[str]:
    config = run_config(name="openenv", options=options, turn_s=200.0)
    return check(
        config, [Tried(Subject(prompt="play", reference="7", options={}, row=0, seed=0), "environment", "row 0")]
    )


def test_a_server_that_fails_is_a_fault_and_no_reward(guessing: str) -> None:
    with pytest.raises(ConversationFailed, match=r"the server failed \(EXECUTION_ERROR\): there is no such game"):
        held("hello", url=guessing, action="number", reset={"number": -1})
