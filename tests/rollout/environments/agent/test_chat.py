"""Requests are read as OpenAI's clients write them; what cannot be given is refused by name."""

from typing import Any

import pytest

from rollout.environments.agent.chat import completion, read_request
from rollout.environments.agent.request import BadRequest, heard

ASKED = [{"role": "user", "content": "what is it"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = 'so <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def read(**body: Any) -> Any:
    return read_request({"model": "m", "messages": ASKED, **body})


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "critic", "content": ""}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stop": ["x"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"name": "x"}]}, "tools"),
    ],
)
def test_what_cannot_be_given_is_refused_by_name(body: dict[str, Any], place: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**body)
    assert refused.value.place == place


def test_what_does_not_change_the_answer_is_taken() -> None:
    asked = read(
        temperature=0.1, top_p=0.5, max_tokens=3, seed=1, user="x", stream=False, n=1, response_format={"type": "text"}
    )
    assert (list(asked.messages), list(asked.tools), asked.model) == (ASKED, [], "m")
    parts = [{"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]}]
    assert read(messages=parts).messages == [{"role": "system", "content": "be brief"}]
    assert read(tools=[TOOL], tool_choice="none").tools == []


def test_an_answer_is_what_openai_answers() -> None:
    types = pytest.importorskip("openai.types.chat")
    said = heard(CALL, "hermes", {"read": 5, "said": 3}, with_tools=True)
    page = types.ChatCompletion.model_validate(completion(said, "m"))
    (choice,) = page.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "so")
    assert choice.message.tool_calls[0].function.arguments == '{"a": 1}'
    assert page.usage.total_tokens == 8
    plain = types.ChatCompletion.model_validate(completion(heard(CALL, "hermes", {}, with_tools=False), "m"))
    assert plain.choices[0].message.content == CALL
    assert plain.choices[0].finish_reason == "stop"
