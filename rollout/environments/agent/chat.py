"""Requests of OpenAI's chat completions and their answers, and whether one request goes on from another.

A request is refused where it asks for what cannot be given and what the agent would miss: streams, several choices, forced
calls. How tokens are drawn is not the agent's to say: temperature, top_p, max_tokens, seed and their like are the run's.
"""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.environments.environment import Message, Tool
from rollout.environments.tools.calls import Call, read_calls

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
ROLES = ("system", "developer", "user", "assistant", "tool")


class BadRequest(Exception):
    """A request that is refused with HTTP 400."""

    def __init__(self, said: str, place: str) -> None:
        super().__init__(said)
        self.place = place


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What an agent asks the policy."""

    messages: Sequence[Message]
    """As templates take them; calls of tools are in `tool_calls`, with their arguments as objects."""
    tools: Sequence[Tool]
    model: str


@dataclass(frozen=True, slots=True)
class Said:
    """What the policy said, raw and as the agent sees it."""

    raw: str
    message: Message
    unreadable: int
    """Calls in it that cannot be read; the agent sees their text."""
    tokens: Mapping[str, int]


def read_request(body: Any) -> ChatRequest:
    """Raises BadRequest, which names the place."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise BadRequest("messages has to be a list of messages", "messages")
    if body.get("stream"):
        raise BadRequest("the policy answers whole messages: leave stream out, or set it to false", "stream")
    if body.get("n") not in (None, 1):
        raise BadRequest("the policy answers once: leave n out, or set it to 1", "n")
    for name in REFUSED:
        if body.get(name) not in (None, False, [], {"type": "text"}):
            raise BadRequest(f"{name} is not supported here: leave it out", name)
    if body.get("tool_choice") not in (None, "auto", "none"):
        raise BadRequest(
            'the policy chooses its tools: leave tool_choice out, or set it to "auto" or "none"', "tool_choice"
        )
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(
        isinstance(one, dict) and isinstance(one.get("function"), dict) for one in tools
    ):
        raise BadRequest('tools has to be a list of {"type": "function", "function": {...}}', "tools")
    offered = [] if body.get("tool_choice") == "none" else tools
    messages = [_message(one, f"messages[{at}]") for at, one in enumerate(body["messages"])]
    return ChatRequest(messages, offered, str(body.get("model", "")))


def _message(given: Any, place: str) -> Message:
    if not isinstance(given, dict) or given.get("role") not in ROLES:
        raise BadRequest(f"{place}.role has to be one of {', '.join(ROLES)}", place)
    role = "system" if given["role"] == "developer" else given["role"]
    message: dict[str, Any] = {"role": role, "content": _text(given.get("content"), f"{place}.content")}
    if role == "assistant" and given.get("tool_calls"):
        message["tool_calls"] = [_called(call, f"{place}.tool_calls") for call in given["tool_calls"]]
    if role == "tool" and isinstance(given.get("name"), str):
        message["name"] = given["name"]
    return message


def _text(content: Any, place: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    raise BadRequest(f"{place} has to be text: the policy reads nothing else", place)


def _called(call: Any, place: str) -> dict[str, Any]:
    try:
        name, arguments = call["function"]["name"], call["function"].get("arguments") or "{}"
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise BadRequest(f"{place} has to hold functions with a name and arguments in JSON", place) from None
    return {"type": "function", "function": {"name": name, "arguments": read}}


def heard(raw: str, form: str, tokens: Mapping[str, int], *, with_tools: bool) -> Said:
    """What the agent sees of a message. form: how the model's family writes calls."""
    read = read_calls(raw, form) if with_tools else None
    calls = [call for call in read.calls if isinstance(call, Call)] if read else []
    unreadable = len(read.calls) - len(calls) if read else 0
    if read is None or not calls:
        return Said(raw, {"role": "assistant", "content": raw}, unreadable, tokens)
    functions = [{"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls]
    return Said(raw, {"role": "assistant", "content": read.text.strip(), "tool_calls": functions}, unreadable, tokens)


def completion(said: Said, model: str) -> dict[str, Any]:
    """The answer to a request, as OpenAI writes it."""
    calls = [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {
                "name": call["function"]["name"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in said.message.get("tool_calls", ())
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


def goes_on(request: ChatRequest, before: ChatRequest, said: Said) -> Sequence[Message] | None:
    """The messages that follow what was said, where the request is the one before with them behind it; None: it is not."""
    known = len(before.messages)
    if list(request.tools) != list(before.tools) or list(request.messages[:known]) != list(before.messages):
        return None
    if len(request.messages) <= known + 1 or request.messages[known] != said.message:
        return None
    more = request.messages[known + 1 :]
    return None if any(message["role"] == "assistant" for message in more) else more


def as_said(messages: Sequence[Message], earlier: Sequence[Said]) -> list[Message]:
    """The messages with those that the policy said in this conversation in its own words."""
    return [
        next(({"role": "assistant", "content": said.raw} for said in earlier if said.message == message), message)
        for message in messages
    ]
