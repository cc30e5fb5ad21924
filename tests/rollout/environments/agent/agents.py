"""Agents written against OpenAI's own client, which know nothing of Ratchet."""

import json
import os
import sys
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

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
    """Asks for a stream, and is refused; then asks without."""
    with OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
        with pytest.raises(BadRequestError, match="leave stream out"):
            client.chat.completions.create(model="policy", messages=problem["messages"], stream=True)
        client.chat.completions.create(model="policy", messages=problem["messages"])


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
