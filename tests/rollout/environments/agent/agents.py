"""Agents written against OpenAI's own client, which know nothing of Ratchet."""

import json
import os
import sys
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from rollout.environments.tools.calculator import compute

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}


def adding(problem: dict[str, Any], base_url: str, api_key: str) -> None:
    """Answers calls of `add` until there is none."""
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        messages: list[Any] = list(problem["messages"])
        for _ in range(5):
            answer = client.chat.completions.create(model="policy", messages=messages, tools=[ADD])  # type: ignore[list-item]
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return
            for call in message.tool_calls:
                given = json.loads(call.function.arguments)  # type: ignore[union-attr]
                said = str(given["a"] + given["b"])
                messages.append({"role": "tool", "tool_call_id": call.id, "content": said})


def responding(problem: dict[str, Any], base_url: str, api_key: str) -> None:
    """As `adding`, by /v1/responses: all items each time."""
    flat = {"type": "function", "strict": False, **ADD["function"]}  # type: ignore[dict-item]
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        items: list[Any] = [{"role": "user", "content": problem["messages"][0]["content"]}]
        for _ in range(5):
            answer = client.responses.create(model="policy", instructions="Add.", input=items, tools=[flat])  # type: ignore[list-item]
            calls = [one for one in answer.output if one.type == "function_call"]
            items += answer.output
            if not calls:
                return
            for call in calls:
                given = json.loads(call.arguments)
                said = str(given["a"] + given["b"])
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": said})


def naming(problem: dict[str, Any], base_url: str, api_key: str) -> float:
    """Asks by /v1/responses, and goes on by the id of the answer before."""
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        first = client.responses.create(model="policy", input=problem["prompt"])
        with pytest.raises(BadRequestError, match="background is not supported here"):
            client.responses.create(model="policy", input="again", background=True)
        with pytest.raises(BadRequestError, match="'resp_0' is not an answer of this conversation"):
            client.responses.create(model="policy", input="again", previous_response_id="resp_0")
        second = client.responses.create(model="policy", input="in one word", previous_response_id=first.id)
    return 1.0 if second.output_text == "seven" else 0.0


def forgetting(problem: dict[str, Any], base_url: str, api_key: str) -> float:
    """Asks twice; the second time it has rewritten what came before. Gives its own reward."""
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        first = client.chat.completions.create(model="policy", messages=problem["messages"])
        said = first.choices[0].message.content
        shortened: list[Any] = [
            {"role": "user", "content": "shortened"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": "and now"},
        ]
        client.chat.completions.create(model="policy", messages=shortened)
    return 0.5


def silent(problem: dict[str, Any], base_url: str, api_key: str) -> None:
    """Says nothing to the policy."""


def refused(problem: dict[str, Any], base_url: str, api_key: str) -> None:
    """Asks for two answers, and is refused; then asks for one."""
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        with pytest.raises(BadRequestError, match="leave n out"):
            client.chat.completions.create(model="policy", messages=problem["messages"], n=2)
        client.chat.completions.create(model="policy", messages=problem["messages"])


def calculating(problem: dict[str, Any], base_url: str, api_key: str) -> None:
    """Computes what the policy has computed, until it calls nothing."""
    parameters = {"type": "object", "properties": {"expression": {"type": "string"}}}
    tool: Any = {"type": "function", "function": {"name": "calculator", "parameters": parameters}}
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        messages: list[Any] = list(problem["messages"])
        while True:
            answer = client.chat.completions.create(model="policy", messages=messages, tools=[tool])
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return
            for call in message.tool_calls:
                expression = json.loads(call.function.arguments)["expression"]  # type: ignore[union-attr]
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(compute(expression))})


def streaming(problem: dict[str, Any], base_url: str, api_key: str) -> None:
    """As `adding`, and every answer is a stream."""
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        messages: list[Any] = list(problem["messages"])
        for _ in range(5):
            how: Any = {"tools": [ADD], "stream_options": {"include_usage": True}}
            with client.chat.completions.stream(model="policy", messages=messages, **how) as stream:
                answer = stream.get_final_completion()
            assert answer.usage is not None
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return
            for call in message.tool_calls:
                given = json.loads(call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(given["a"] + given["b"])})


def responding_in_a_stream(problem: dict[str, Any], base_url: str, api_key: str) -> None:
    """As `responding`, and every answer is a stream, gone on from by its id."""
    flat: Any = {"type": "function", "strict": False, **ADD["function"]}  # type: ignore[dict-item]
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        asked: dict[str, Any] = {"input": problem["prompt"], "tools": [flat]}
        for _ in range(5):
            with client.responses.stream(model="policy", **asked) as stream:
                answer = stream.get_final_response()
            calls = [one for one in answer.output if one.type == "function_call"]
            if not calls:
                return
            results = []
            for call in calls:
                given = json.loads(call.arguments)
                said = str(given["a"] + given["b"])
                results.append({"type": "function_call_output", "call_id": call.call_id, "output": said})
            asked |= {"input": results, "previous_response_id": answer.id}


def main() -> None:
    """As a program: the address comes in the variables that OpenAI's client reads by itself."""
    problem = json.load(sys.stdin)
    with OpenAI(max_retries=0) as client:
        answer = client.chat.completions.create(model="policy", messages=problem["messages"])
    print("noise")
    names = [name for name in os.environ if name.startswith("RATCHET")]
    print(json.dumps({"reward": 1.0 if "seven" in (answer.choices[0].message.content or "") and not names else 0.25}))


if __name__ == "__main__":
    main()
