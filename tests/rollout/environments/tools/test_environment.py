"""The policy calls tools until it answers; what it does wrong is said to it, and what a tool does wrong is a fault."""

import asyncio
import json
import time
from typing import Any

import pytest

from rollout.environments.loading import environment_maker
from services.errors import InputError, RatchetError
from tests.rollout.conversation.talking import run_config
from tests.rollout.environments.tools.talk import PROBLEM, answers, call, service, talk

CALCULATOR = {"type": "calculator"}


def test_calls_are_answered_and_the_first_message_without_one_ends_the_conversation() -> None:
    start, (first, second, last) = talk(
        [CALCULATOR],
        f"Let me see. {call('calculator', expression='12 * 7')}",
        call("calculator", expression="1 + 1") + call("calculator", expression="7 / 2"),
        "It is 84.",
    )
    assert [one["content"] for one in start.messages] == ["What is 12 * 7?"]
    assert [tool["function"]["name"] for tool in start.tools] == ["calculator"]
    assert [dict(one) for one in first.messages] == [{"role": "tool", "name": "calculator", "content": "84"}]
    assert [one["content"] for one in second.messages] == ["2", "3.5"]
    assert len(second.info["tool_seconds"]["calculator"]) == 2
    assert (last.done, last.reward, list(last.messages)) == (True, None, [])


@pytest.mark.parametrize(
    ("said", "why", "counted"),
    [
        ("<tool_call>calculator(3)</tool_call>", "this call cannot be read: it is not JSON", "unreadable"),
        (call("abacus", expression="1"), "there is no tool 'abacus'; there are calculator", "abacus"),
        (call("calculator", formula="1"), "the arguments are wrong", "calculator"),
        (call("calculator", expression=7), "7 is not of type 'string'", "calculator"),
        (call("calculator", expression="1 / 0"), "division by zero", "calculator"),
    ],
)
def test_what_the_policy_does_wrong_is_said_and_counted(said: str, why: str, counted: str) -> None:
    _, (turn,) = talk([CALCULATOR], said)
    assert why in turn.messages[0]["content"]
    assert turn.messages[0]["content"].startswith("Error: ")
    assert (turn.done, turn.reward, turn.info["tool_errors"]) == (False, None, [counted])


def test_messages_that_call_are_rewarded_as_the_options_say() -> None:
    good, bad = call("calculator", expression="1 + 1"), call("abacus", expression="1")
    _, turns = talk([CALCULATOR], good, good + bad, "2", called=0.1, failed=-0.2)
    assert [turn.reward for turn in turns] == [0.1, -0.2, None]


def test_calls_run_out() -> None:
    one = call("calculator", expression="1 + 1")
    assert answers([CALCULATOR], one, one + one, max_calls=2) == ["2", "2", "Error: no calls are left; answer now"]


def test_a_long_answer_is_shown_in_part() -> None:
    with service(lambda headers, body: (200, b"a" * 500 + b"b" * 500)) as url:
        (said,) = answers([http(url)], call("ask", text="x"), max_characters=100)
    assert said == "a" * 50 + "\n... (900 characters left out) ...\n" + "b" * 50


def http(url: str, **changes: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return {"type": "http", "name": "ask", "url": url, "description": "asks", "parameters": schema, **changes}


def test_an_http_tool_is_sent_the_arguments_and_nothing_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_VERIFIER_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    seen: list[Any] = []

    def answer(headers: Any, body: Any) -> tuple[int, bytes]:
        seen.append((headers, body))
        return 200, b"seven"

    with service(answer) as url:
        assert answers([http(url)], call("ask", text="what")) == ["seven"]
    ((headers, body),) = seen
    assert body == {"text": "what"}
    assert {name.lower() for name in headers} <= {
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type",
    }  # fmt: skip
    assert "0123456789abcdef" not in json.dumps(headers)


def test_what_an_http_tool_refuses_is_said_and_its_own_failures_are_faults() -> None:
    with service(lambda headers, body: (422, b"text has to be a city")) as url:
        assert answers([http(url)], call("ask", text="x")) == ["Error: text has to be a city"]
    with service(lambda headers, body: (503, b"busy")) as url, pytest.raises(RatchetError, match="HTTP 503: busy"):
        talk([http(url)], call("ask", text="x"))
    with service(lambda headers, body: (302, b"")) as url, pytest.raises(RatchetError, match="HTTP 302"):
        talk([http(url)], call("ask", text="x"))
    with service(lambda headers, body: (200, b"x" * 5000)) as url:
        assert answers([http(url, max_bytes=10)], call("ask", text="x")) == ["x" * 10]


def test_a_tool_that_is_late_is_a_fault() -> None:
    def slow(headers: Any, body: Any) -> tuple[int, bytes]:
        time.sleep(1.0)
        return 200, b""

    with service(slow) as url, pytest.raises(Exception, match=r"more than its 0.2 seconds|ReadTimeout|^$"):
        talk([http(url, seconds=0.2)], call("ask", text="x"))


def test_many_slow_calls_in_one_message_are_the_policys_doing() -> None:
    def slow(headers: Any, body: Any) -> tuple[int, bytes]:
        time.sleep(0.3)
        return 200, b"done"

    with service(slow) as url:
        said = answers([http(url, seconds=0.5)], call("ask", text="x") * 5, environment={"turn_s": 1.0})
    assert said[0] == "done"
    assert said[-1] == "Error: the calls before it took too long; make fewer in one message"


def wrong(tools: list[dict[str, Any]], **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        talk(tools, **options)
    return str(refused.value)


def test_what_the_user_got_wrong_is_named_by_its_setting() -> None:
    assert 'environment.name = "tools" needs tools' in wrong([])
    assert 'format = "xml" is not one of hermes, llama3_json' in wrong([CALCULATOR], format="xml")
    assert "max_calls = 0" in wrong([CALCULATOR], max_calls=0)
    assert "it knows format, max_calls, max_characters" in wrong([CALCULATOR], calls=3)
    said = wrong([http("http://127.0.0.1:9/x", parameters={"type": "objekt"})])
    assert "environment.tools.0.parameters is not a JSON schema of arguments: 'objekt'" in said
    assert "its type is" in wrong([http("http://127.0.0.1:9/x", parameters={"type": "string"})])
    with pytest.raises(InputError, match=r'environment.tools: environment.name = "guess" takes no tools'):
        environment_maker(run_config(name="guess", tools=[{"type": "calculator", "seconds": 1}]))


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([CALCULATOR, CALCULATOR], 'two tools are named "calculator"'),
        ([{"type": "abacus"}], "abacus"),
        ([http("ftp://x/y")], "is not a URL"),
        ([http("http://user:secret@x/y")], "a tool is given no secrets"),
        ([{"type": "mcp"}], "needs either command"),
        ([{"type": "calculator", "seconds": 40}], "more than half of turn_s = 60"),
        ([{"type": "calculator", "name": "a b"}], "pattern"),
    ],
)
def test_settings_that_cannot_be_are_refused(tools: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        run_config(name="tools", tools=tools, turn_s=60.0)
    assert "environment" in str(refused.value)


def test_conversations_do_not_share_what_they_hold() -> None:
    make = environment_maker(run_config(name="tools", tools=[CALCULATOR | {"seconds": 1}], options={"max_calls": 1}))

    async def both() -> list[str]:
        said = []
        for _ in range(2):
            held = make()
            await held.reset(PROBLEM)
            turn = await held.step({"role": "assistant", "content": call("calculator", expression="1")})
            said.append(turn.messages[0]["content"])
            await held.close()
        return said

    assert asyncio.run(both()) == ["1", "1"]
