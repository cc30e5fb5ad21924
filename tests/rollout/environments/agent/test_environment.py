"""An agent written against OpenAI's client is a conversation like any other: tokens as they were sampled, in one sequence while
its history goes on and in several where it rewrites it."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.conversation.conversations import ConversationFailed, HeldGroup
from rollout.environments import Subject
from rollout.environments.agent.environment import Agent
from rollout.environments.agent.server import server_of_this_loop
from rollout.environments.loading import environment_maker
from services.errors import InputError
from services.wire.trajectory import check_turns
from tests.fakes.talking_engine import TalkingEngine
from tests.fakes.tokenizers import tokenizer_of
from tests.rollout.conversation.talking import conversations, message, prompt, run_config

pytest.importorskip("openai")
AGENTS = "tests.rollout.environments.agent.agents"
CALL = '<tool_call>{"name": "add", "arguments": {"a": 3, "b": 4}}</tool_call>'
PROBLEM = Subject(prompt="what is it", reference="7", options={}, row=0, seed=0)


def held(*texts: str, **how: Any) -> tuple[HeldGroup, TalkingEngine]:
    """A group of conversations with an agent, in which the policy says these texts in turn."""
    return hold("agent", *texts, **how)


def hold(
    name: str,
    *texts: str,
    attempts: int = 1,
    group_size: int = 2,
    grader: str = "exact",
    row: int = 0,
    max_turns: int = 8,
    **options: Any,
) -> tuple[HeldGroup, TalkingEngine]:
    """A group of conversations with the environment of this name, in which the policy says these texts in turn."""
    config = run_config(name=name, options=options, attempts=attempts, turn_s=200.0, max_turns=max_turns)
    asked: dict[str, int] = {}

    def says(own: Any) -> list[int]:
        asked[own.group_id] = asked.get(own.group_id, 0) + 1
        return message(texts[min(asked[own.group_id], len(texts)) - 1])

    engine = TalkingEngine(says)

    async def scenario() -> HeldGroup:
        talks = conversations(environment_maker(config), config)
        try:
            async with asyncio.timeout(240):
                return await talks.sample(prompt(row, grader=grader, group_size=group_size), engine.sample)
        finally:
            await talks.stop()

    return asyncio.run(scenario()), engine


def text(ids: Any) -> str:
    return str(tokenizer_of("chatml").decode(ids.numpy().tolist()))


@pytest.mark.parametrize("agent", ["adding", "streaming", "responding", "responding_in_a_stream"])
def test_an_agent_that_goes_on_is_one_sequence_with_the_tokens_that_were_sampled(agent: str) -> None:
    group, engine = held(CALL, "it is seven", function=f"{AGENTS}:{agent}")
    for index, one in enumerate(group.trajectories):
        check_turns(one)
        assert [turn.restarts for turn in one.turns] == [False, False]
        assert one.token_ids.numpy().tolist() == message(CALL) + message("it is seven")
        asked = [own.token_ids.numpy().tolist() for own in engine.asked if own.group_id == f"train-0/{index}"]
        begun = group.prompt.token_ids.numpy().tolist()
        assert asked == [begun, begun + message(CALL) + one.turns[1].given.numpy().tolist()]
        assert "<|im_start|>tool\n7<|im_end|>" in text(one.turns[1].given)
        assert (one.finish_reason, one.reward) == ("stop", None)
        assert len(one.behavior_logp) == len(one)
        assert len(one.policy_versions()) == len(one)
    begun_text = text(group.prompt.token_ids)
    assert '"name": "add"' in begun_text
    assert "which number" in begun_text


def test_an_agent_that_names_the_answer_before_is_one_sequence() -> None:
    group, _ = held("it is seven", "seven", function=f"{AGENTS}:naming", grader="environment")
    for one in group.trajectories:
        check_turns(one)
        assert [turn.restarts for turn in one.turns] == [False, False]
        assert one.token_ids.numpy().tolist() == message("it is seven") + message("seven")
        assert "in one word" in text(one.turns[1].given)
        assert one.reward == 1.0


def test_an_agent_that_rewrites_its_history_becomes_several_sequences_of_one_member() -> None:
    group, _ = held("hello", "it is seven", function=f"{AGENTS}:forgetting", grader="environment")
    for one in group.trajectories:
        check_turns(one)
        assert [turn.restarts for turn in one.turns] == [False, True]
        again = text(one.turns[1].given)
        assert again.startswith("<|im_start|>user\nshortened<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>")
        assert again.endswith("and now<|im_end|>\n<|im_start|>assistant\n")
        assert one.reward == 0.5


def test_a_program_is_told_the_address_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_VERIFIER_TOKEN", "0123456789abcdef")
    program = [sys.executable, str(Path(__file__).with_name("agents.py"))]
    group, _ = held("it is seven", command=program, grader="environment")
    assert [(one.reward, len(one.turns)) for one in group.trajectories] == [(1.0, 1)] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"function": f"{AGENTS}:silent"}, "ended without a word to the policy"),
        ({"command": ["sh", "-c", "echo no such model >&2; exit 3"]}, "exit code 3: no such model"),
        (
            {"function": "tests.rollout.environments.agent.test_environment:raising"},
            "step raised KeyError|reset raised KeyError",
        ),
    ],
)
def test_an_agent_that_fails_is_a_fault_and_no_reward(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConversationFailed, match=said):
        held("hello", **options)


async def raising(problem: Any, base_url: str, api_key: str) -> None:
    raise KeyError(problem["row"])


MEETING = threading.Barrier(40)


def meeting(problem: Any, base_url: str, api_key: str) -> None:
    """Asks once all forty have begun."""
    MEETING.wait(20)
    httpx.post(
        f"{base_url}/chat/completions",
        json={"messages": problem["messages"]},
        headers={"Authorization": f"Bearer {api_key}"},
        trust_env=False,
        timeout=30,
    ).raise_for_status()


def test_functions_that_block_do_not_wait_for_one_another() -> None:
    group, _ = held("it is seven", group_size=40, function="tests.rollout.environments.agent.test_environment:meeting")
    assert len(group.trajectories) == 40


def test_a_request_is_refused_and_the_conversation_goes_on() -> None:
    group, _ = held("it is seven", function=f"{AGENTS}:refused")
    assert {len(one.turns) for one in group.trajectories} == {1}


def test_calls_that_cannot_be_read_reach_the_agent_as_text() -> None:
    broken = "<tool_call>add(3, 4)</tool_call>"
    group, _ = held(broken, function=f"{AGENTS}:adding")
    assert [len(one.turns) for one in group.trajectories] == [1, 1]


DOORS: dict[str, Any] = {
    "POST chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    "POST responses": {"model": "m", "input": "hello"},
    "GET models": None,
}
"""Everything that the address serves, and a request that it takes."""


@pytest.mark.parametrize("door", DOORS)
def test_only_the_conversations_own_key_opens_a_door_and_only_while_it_lasts(door: str) -> None:
    method, path = door.split()

    async def scenario() -> None:
        agent = Agent(function="tests.rollout.environments.agent.test_environment:asking")
        start = await agent.reset(PROBLEM)
        assert [one["content"] for one in start.messages] == ["what is it"]
        url, own = f"{server_of_this_loop().base_url}/{path}", KEYS[-1]
        assert url.startswith("http://127.0.0.1:")
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

            async def ask(**authorization: str) -> httpx.Response:
                return await client.request(method, url, json=DOORS[door], headers=authorization)

            wrong = ("", "Bearer", "Bearer x", f"Bearer {own}x", f"Bearer {own[:-1]}", f"Basic {own}", own)
            for refused in [await ask(), *[await ask(authorization=one) for one in wrong]]:
                assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
            asked = asyncio.create_task(ask(authorization=f"Bearer {own}"))
            if method == "POST":
                await asyncio.sleep(0.1)
                assert not asked.done()  # it waits for the policy
                await agent.close()
                late = await asked
                assert (late.status_code, late.json()["error"]["code"]) == (400, "conversation_over")
            else:
                assert (await asked).status_code == 200
                await agent.close()
            assert (await ask(authorization=f"Bearer {own}")).status_code == 401

    asyncio.run(scenario())


def test_what_the_address_serves_is_behind_these_doors_alone() -> None:
    async def scenario() -> None:
        agent = Agent(function="tests.rollout.environments.agent.test_environment:asking")
        await agent.reset(PROBLEM)
        server, own = server_of_this_loop().base_url.removesuffix("/v1"), {"Authorization": f"Bearer {KEYS[-1]}"}
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            for path in (
                "/",
                "/v1",
                "/metrics",
                "/healthz",
                "/v1/completions",
                "/v1/load_lora_adapter",
                "/collective_rpc",
            ):
                found = [await client.request(method, server + path, headers=own) for method in ("GET", "POST")]
                assert [one.status_code for one in found] == [404, 404]
        await agent.close()

    asyncio.run(scenario())


def test_a_key_speaks_to_its_own_conversation_and_no_other() -> None:
    async def scenario() -> None:
        one, other = (Agent(function="tests.rollout.environments.agent.test_environment:asking") for _ in range(2))
        await one.reset(PROBLEM)
        key = KEYS[-1]
        await other.reset(PROBLEM)
        assert len(set(KEYS[-2:])) == 2
        url = f"{server_of_this_loop().base_url}/chat/completions"
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            body = DOORS["POST chat/completions"]
            asked = asyncio.create_task(client.post(url, json=body, headers={"Authorization": f"Bearer {key}"}))
            await other.close()  # what ends with its conversation is not the request of this one
            await asyncio.sleep(0.1)
            assert not asked.done()
            await one.close()
            assert (await asked).json()["error"]["code"] == "conversation_over"

    asyncio.run(scenario())


def test_openais_own_client_is_refused_without_the_key() -> None:
    from openai import AsyncOpenAI, AuthenticationError

    async def scenario() -> None:
        agent = Agent(function="tests.rollout.environments.agent.test_environment:asking")
        await agent.reset(PROBLEM)
        async with AsyncOpenAI(base_url=server_of_this_loop().base_url, api_key="guessed", max_retries=0) as client:
            with pytest.raises(AuthenticationError, match="belongs to no conversation"):
                await client.chat.completions.create(model="policy", messages=[{"role": "user", "content": "hello"}])
            with pytest.raises(AuthenticationError, match="belongs to no conversation"):
                await client.responses.create(model="policy", input="hello")
        await agent.close()

    asyncio.run(scenario())


KEYS: list[str] = []


async def asking(problem: Any, base_url: str, api_key: str) -> None:
    KEYS.append(api_key)
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
        headers = {"Authorization": f"Bearer {api_key}"}
        body = {"model": "m", "messages": problem["messages"]}
        await client.post(f"{base_url}/chat/completions", json=body, headers=headers)


def wrong(**options: Any) -> str:
    with pytest.raises(InputError) as refused:
        environment_maker(run_config(name="agent", options=options))
    return str(refused.value)


def odd(question: str) -> float:
    return float(question)


def test_what_the_user_got_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "an agent needs either command" in wrong()
    assert "there is no program" in wrong(command=["no-such-program"])
    plain = tmp_path / "agent.py"
    plain.write_text("print('no first line says what runs it')\n", encoding="utf-8")
    assert f'"{plain}" is not executable: make it so (chmod +x)' in wrong(command=[str(plain)])
    assert "environment.options.command = 'python agent.py': must be a list" in wrong(command="python agent.py")
    assert "command is empty" in wrong(command=[])
    assert "No module named 'no_such'; name the folder that it is in in PYTHONPATH" in wrong(function="no_such:agent")
    assert 'function = "agent.py" is not of the form "module:name"' in wrong(function="agent.py")
    assert f"{AGENTS} has no function nobody" in wrong(function=f"{AGENTS}:nobody")
    assert "is not a function" in wrong(function="tests.rollout.environments.agent.test_environment:DOORS")
    here = "tests.rollout.environments.agent.test_environment"
    assert "is called with problem, base_url and api_key, by these names: missing" in wrong(function=f"{here}:odd")
    ends = tmp_path / "ratchet_test_ends.py"
    ends.write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "ratchet_test_ends cannot be imported: SystemExit: 0" in wrong(function="ratchet_test_ends:agent")
    assert 'format = "xml"' in wrong(function=f"{AGENTS}:adding", format="xml")
    assert "it knows command, function, format" in wrong(func="x")
