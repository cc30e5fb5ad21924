"""OpenAI's chat completions: a request read, an answer written, whole or as a stream."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from rollout.environments.agent.request import (
    BadRequest,
    Request,
    Said,
    called,
    named_calls,
    offers_tools,
    refuse,
    role_of,
    text_of,
)
from rollout.environments.environment import Message

REFUSED = (
    "response_format",
    "stop",
    "functions",
    "function_call",
    "logprobs",
    "audio",
    "prediction",
    "web_search_options",
)
"""What an answer would lack."""


def read_request(body: Any) -> Request:
    """Raises BadRequest, which names the place."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise BadRequest("messages has to be a list of messages", "messages")
    if body.get("n") not in (None, 1):
        raise BadRequest("the policy answers once: leave n out, or set it to 1", "n")
    refuse(body, REFUSED)
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(
        isinstance(one, dict) and isinstance(one.get("function"), dict) for one in tools
    ):
        raise BadRequest('tools has to be a list of {"type": "function", "function": {...}}', "tools")
    offered = tools if offers_tools(body) else []
    messages = [_message(one, f"messages[{at}]") for at, one in enumerate(body["messages"])]
    return Request(messages, offered, str(body.get("model", "")))


def _message(given: Any, place: str) -> Message:
    role = role_of(given.get("role") if isinstance(given, dict) else None, place)
    message: dict[str, Any] = {"role": role, "content": text_of(given.get("content"), f"{place}.content")}
    if role == "assistant" and given.get("tool_calls"):
        message["tool_calls"] = [_called(call, f"{place}.tool_calls") for call in given["tool_calls"]]
    if role == "tool" and isinstance(given.get("name"), str):
        message["name"] = given["name"]
    return message


def _called(call: Any, place: str) -> dict[str, Any]:
    return called(call.get("function") if isinstance(call, dict) else None, place)


def completion(said: Said, model: str) -> dict[str, Any]:
    """The answer to a request, as OpenAI writes it."""
    calls = [
        {"id": one.call_id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for one in named_calls(said)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": said.message["content"] or None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    read, own = said.tokens.get("read", 0), said.tokens.get("said", 0)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": own, "total_tokens": read + own},
    }


def chunks(body: Mapping[str, Any], answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answer as a stream has it: the message in one piece, then how it ended, then what it took, where that is asked for."""
    (choice,) = answer["choices"]
    calls = choice["message"].get("tool_calls", ())
    delta = {"role": "assistant", "content": choice["message"]["content"]}
    if calls:
        delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
    head = {
        "id": answer["id"],
        "object": "chat.completion.chunk",
        "created": answer["created"],
        "model": answer["model"],
    }
    made = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        made.append({**head, "choices": [], "usage": answer["usage"]})
    return made
