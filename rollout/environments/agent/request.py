"""What an agent asks and what it hears, whichever of OpenAI's APIs it speaks, and whether one request goes on from another.

A request is refused where it asks for what cannot be given and what the agent would miss: several choices, forced calls, another
shape than text. How tokens are drawn is not the agent's to say: temperature, top_p, token limits, seed and their like are the
run's. A stream has the whole message at once, because a message is recorded whole.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.environments.environment import Message, Tool
from rollout.environments.tools.calls import Call, read_calls

ROLES = ("system", "developer", "user", "assistant", "tool")


class BadRequest(Exception):
    """A request that is refused with HTTP 400."""

    def __init__(self, said: str, place: str) -> None:
        super().__init__(said)
        self.place = place


@dataclass(frozen=True, slots=True)
class Request:
    """What an agent asks the policy."""

    messages: Sequence[Message]
    """As templates take them; calls of tools are in `tool_calls`, with their arguments as objects."""
    tools: Sequence[Tool]
    """As templates take them."""
    model: str


@dataclass(frozen=True, slots=True)
class Said:
    """What the policy said, raw and as the agent sees it."""

    raw: str
    message: Message
    unreadable: int
    """Calls in it that cannot be read; the agent sees their text."""
    tokens: Mapping[str, int]


def heard(raw: str, form: str, tokens: Mapping[str, int], *, with_tools: bool) -> Said:
    """What the agent sees of a message. form: how the model's family writes calls."""
    read = read_calls(raw, form) if with_tools else None
    calls = [call for call in read.calls if isinstance(call, Call)] if read else []
    unreadable = len(read.calls) - len(calls) if read else 0
    if read is None or not calls:
        return Said(raw, {"role": "assistant", "content": raw}, unreadable, tokens)
    functions = [{"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls]
    return Said(raw, {"role": "assistant", "content": read.text.strip(), "tool_calls": functions}, unreadable, tokens)


def goes_on(request: Request, before: Request, said: Said) -> Sequence[Message] | None:
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


def refuse(body: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse these fields where they ask for something. Raises BadRequest, which names the first."""
    for name in names:
        if body.get(name) not in (None, False, [], {}, {"type": "text"}):
            raise BadRequest(f"{name} is not supported here: leave it out", name)


def offers_tools(body: Mapping[str, Any]) -> bool:
    """Whether the policy may call the request's tools. Raises BadRequest for calls that are forced."""
    if body.get("tool_choice") not in (None, "auto", "none"):
        raise BadRequest(
            'the policy chooses its tools: leave tool_choice out, or set it to "auto" or "none"', "tool_choice"
        )
    return body.get("tool_choice") != "none"


def text_of(content: Any, place: str) -> str:
    """The text of a message. Raises BadRequest for what is not text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    raise BadRequest(f"{place} has to be text: the policy reads nothing else", place)


def role_of(given: Any, place: str) -> str:
    """The role that a template knows it by. Raises BadRequest."""
    if not isinstance(given, str) or given not in ROLES:
        raise BadRequest(f"{place}.role has to be one of {', '.join(ROLES)}", place)
    return "system" if given == "developer" else given


def called(call: Any, place: str) -> dict[str, Any]:
    """A call with its arguments as an object. call: {"name": ..., "arguments": JSON}. Raises BadRequest."""
    try:
        name, arguments = call["name"], call.get("arguments") or "{}"
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise BadRequest(f"{place} has to hold functions with a name and arguments in JSON", place) from None
    return {"type": "function", "function": {"name": name, "arguments": read}}


@dataclass(frozen=True, slots=True)
class NamedCall:
    """A call of the policy as the agent is told of it."""

    call_id: str
    name: str
    arguments: str
    """JSON."""


def named_calls(said: Said) -> list[NamedCall]:
    """The calls in a message, each with an id."""
    return [
        NamedCall(
            f"call_{uuid.uuid4().hex[:24]}",
            call["function"]["name"],
            json.dumps(call["function"]["arguments"], ensure_ascii=False),
        )
        for call in said.message.get("tool_calls", ())
    ]
