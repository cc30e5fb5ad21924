"""OpenAI's responses are read as its clients write them, and one answer is one message again when it comes back."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rollout.environments.agent.request import BadRequest, Request, goes_on, heard
from rollout.environments.agent.responses import Histories, read_request, response
from rollout.environments.environment import Message
from tests.rollout.environments.agent.test_chat import ASKED, CALL, TOOL

FLAT = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
RESULT = {"role": "tool", "content": "2"}


def read(histories: Mapping[str, Sequence[Message]] = {}, **body: Any) -> Request:
    return read_request({"model": "m", "input": "what is it", **body}, histories)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": ["hello"]}, "input[0]"),
        ({"input": [{"role": "critic", "content": ""}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content",
        ),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "add", "arguments": "{"}]}, "input[0]"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [TOOL]}, "tools[0]"),
        ({"instructions": ["x"]}, "instructions"),
        ({"previous_response_id": "resp_other"}, "previous_response_id"),
    ],
)
def test_what_cannot_be_given_is_refused_by_name(body: dict[str, Any], place: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**body)
    assert refused.value.place == place


def test_a_text_and_a_list_of_items_are_messages() -> None:
    assert read(temperature=0.1, max_output_tokens=3, store=False, text={"format": {"type": "text"}}).messages == ASKED
    asked = read(
        instructions="be brief",
        tools=[FLAT],
        input=[
            {"role": "developer", "content": [{"type": "input_text", "text": "be kind"}]},
            {"role": "user", "content": "what is it"},
            {"type": "function_call", "call_id": "c", "name": "add", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "2"}]},
        ],
    )
    assert [message["role"] for message in asked.messages] == ["system", "system", "user", "assistant", "tool"]
    assert asked.messages[3]["tool_calls"] == [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    assert asked.tools == [TOOL]
    assert read(tools=[FLAT], tool_choice="none").tools == []


def answered(raw: str, body: dict[str, Any], histories: Histories) -> tuple[Any, Any, Request]:
    asked = read_request(body, histories)
    said = heard(raw, "hermes", {"read": 5, "said": 3}, with_tools=bool(asked.tools))
    return response(said, asked, body, histories), said, asked


def test_an_answer_is_what_openai_answers() -> None:
    types = pytest.importorskip("openai.types.responses")
    body = {"model": "m", "input": "what is it", "tools": [FLAT], "instructions": "be brief"}
    page = types.Response.model_validate(answered(CALL, body, {})[0])
    assert (page.output_text, page.status, page.usage.total_tokens) == ("so", "completed", 8)
    (call,) = [one for one in page.output if one.type == "function_call"]
    assert (call.name, call.arguments) == ("add", '{"a": 1}')
    plain = types.Response.model_validate(answered("", {"model": "m", "input": "x"}, {})[0])
    assert [one.type for one in plain.output] == ["message"]


@pytest.mark.parametrize("raw", [CALL, CALL.removeprefix("so "), CALL + CALL, "It is 3"])
def test_both_ways_of_going_on_are_the_same_conversation(raw: str) -> None:
    histories: Histories = {}
    body = {"model": "m", "input": "what is it", "tools": [FLAT], "instructions": "be brief"}
    page, said, asked = answered(raw, body, histories)
    result = {"type": "function_call_output", "call_id": "c", "output": "2"}
    whole = read_request({**body, "input": [{"role": "user", "content": "what is it"}, *page["output"], result]}, {})
    named = read_request({**body, "input": [result], "previous_response_id": page["id"]}, histories)
    assert goes_on(whole, asked, said) == goes_on(named, asked, said) == [RESULT]


def test_instructions_are_not_carried_over() -> None:
    histories: Histories = {}
    page, said, asked = answered("It is 3", {"model": "m", "input": "x", "instructions": "be brief"}, histories)
    after = read_request({"model": "m", "input": "why", "previous_response_id": page["id"]}, histories)
    assert [message["role"] for message in after.messages] == ["user", "assistant", "user"]
    assert goes_on(after, asked, said) is None
