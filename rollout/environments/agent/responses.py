"""OpenAI's responses: a request read, an answer written, whole or as a stream.

A request may name the answer before it (previous_response_id) and bring what follows alone; instructions belong to one request
and are never carried over. What an answer says and calls are items of its own; read again, they are one message, as the policy
said it.
"""

import time
import uuid
from collections.abc import Mapping, MutableMapping, Sequence
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
from rollout.environments.environment import Message, Tool

REFUSED = ("background", "conversation", "prompt", "top_logprobs")
"""What an answer would lack."""
HARMLESS = ("reasoning.encrypted_content",)
"""What `include` may ask for: the policy's answers have no item that would hold it."""

Histories = MutableMapping[str, Sequence[Message]]
"""Id of a response -> everything up to it, instructions left out and the answer included."""


def read_request(body: Any, histories: Mapping[str, Sequence[Message]]) -> Request:
    """histories: of this conversation's agent. Raises BadRequest, which names the place."""
    if not isinstance(body, dict):
        raise BadRequest("the body has to be an object", "input")
    refuse(body, REFUSED)
    _look_at_output(body)
    items = _messages_before(body, histories) + _messages_of(body.get("input"))
    if not items:
        raise BadRequest("input has to be a text or a list of items", "input")
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise BadRequest("instructions has to be a text", "instructions")
    opens: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    tools = _tools(body.get("tools") or [])
    return Request([*opens, *items], tools if offers_tools(body) else [], str(body.get("model", "")))


def _look_at_output(body: Mapping[str, Any]) -> None:
    """Refuse another shape of the answer than text."""
    text = body.get("text")
    if isinstance(text, dict) and text.get("format") not in (None, {"type": "text"}):
        raise BadRequest("the policy answers text: leave text.format out", "text.format")
    asked = body.get("include") or []
    odd = [one for one in asked if one not in HARMLESS] if isinstance(asked, list) else [asked]
    if odd:
        raise BadRequest(f"include = {odd[0]!r} is not supported here: leave it out", "include")


def _messages_before(body: Mapping[str, Any], histories: Mapping[str, Sequence[Message]]) -> list[Message]:
    named = body.get("previous_response_id")
    if named is None:
        return []
    if named not in histories:
        raise BadRequest(
            f"previous_response_id = {named!r} is not an answer of this conversation", "previous_response_id"
        )
    return list(histories[named])


def _messages_of(given: Any) -> list[Message]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if given else []
    if not isinstance(given, list):
        raise BadRequest("input has to be a text or a list of items", "input")
    messages: list[Message] = []
    for at, item in enumerate(given):
        place = f"input[{at}]"
        if not isinstance(item, dict):
            raise BadRequest(f"{place} has to be an object", place)
        match item.get("type", "message"):
            case "message":
                role = role_of(item.get("role"), place)
                messages.append({"role": role, "content": text_of(item.get("content"), f"{place}.content")})
            case "function_call":
                _add_call(messages, called(item, place))
            case "function_call_output":
                messages.append({"role": "tool", "content": text_of(item.get("output"), f"{place}.output")})
            case other:
                raise BadRequest(
                    f"{place}.type = {other!r} is not supported here: messages, function_call and function_call_output are",
                    f"{place}.type",
                )
    return messages


def _add_call(messages: list[Message], call: dict[str, Any]) -> None:
    """Into the message that it was said in: what was said last, or one of its own."""
    last = messages[-1] if messages else None
    if last is None or last["role"] != "assistant":
        last = {"role": "assistant", "content": ""}
        messages.append(last)
    messages[-1] = {**last, "tool_calls": [*last.get("tool_calls", ()), call]}


def _tools(given: Any) -> list[Tool]:
    if not isinstance(given, list):
        raise BadRequest("tools has to be a list", "tools")
    for at, one in enumerate(given):
        if not isinstance(one, dict) or one.get("type") != "function" or not isinstance(one.get("name"), str):
            raise BadRequest(
                f'tools[{at}] has to be {{"type": "function", "name": ..., "parameters": ...}}: the policy has no other tools',
                f"tools[{at}]",
            )
    known = ("name", "description", "parameters")
    return [{"type": "function", "function": {name: one[name] for name in known if name in one}} for one in given]


def response(said: Said, request: Request, body: Mapping[str, Any], histories: Histories) -> dict[str, Any]:
    """The answer to a request, as OpenAI writes it; its history is kept, for a request that names it."""
    now = uuid.uuid4().hex
    content = said.message["content"]
    calls = named_calls(said)
    output: list[dict[str, Any]] = []
    if content or not calls:
        text = {"type": "output_text", "text": content, "annotations": [], "logprobs": []}
        output.append(
            {"id": f"msg_{now}", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        )
    output += [
        {
            "id": f"fc_{uuid.uuid4().hex}",
            "type": "function_call",
            "call_id": one.call_id,
            "name": one.name,
            "arguments": one.arguments,
            "status": "completed",
        }
        for one in calls
    ]
    opened = 1 if body.get("instructions") else 0
    histories[f"resp_{now}"] = [*request.messages[opened:], said.message]
    read, own = said.tokens.get("read", 0), said.tokens.get("said", 0)
    return {
        "id": f"resp_{now}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "model": request.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": own,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + own,
        },
    }


def events(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answer as a stream has it: every item begins, comes in one piece, and ends."""
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    made: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(answer["output"]):
        made += _item_events(item, {"item_id": item["id"], "output_index": index})
    made.append({"type": "response.completed", "response": answer})
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


def _item_events(item: Mapping[str, Any], place: Mapping[str, Any]) -> list[dict[str, Any]]:
    index = {"output_index": place["output_index"]}
    if item["type"] == "function_call":
        empty: dict[str, Any] = {"arguments": ""}
        pieces = [
            {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]},
            {
                "type": "response.function_call_arguments.done",
                **place,
                "name": item["name"],
                "arguments": item["arguments"],
            },
        ]
    else:
        empty = {"content": []}
        (part,) = item["content"]
        text = {**place, "content_index": 0}
        pieces = [
            {"type": "response.content_part.added", **text, "part": {**part, "text": ""}},
            {"type": "response.output_text.delta", **text, "delta": part["text"], "logprobs": []},
            {"type": "response.output_text.done", **text, "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", **text, "part": part},
        ]
    return [
        {"type": "response.output_item.added", **index, "item": {**item, "status": "in_progress", **empty}},
        *pieces,
        {"type": "response.output_item.done", **index, "item": item},
    ]
