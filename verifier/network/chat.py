"""OpenAI's chat completions, as far as a judge needs them: messages go out, one text comes back, its tokens are counted."""

from collections.abc import Sequence
from typing import Any

import msgspec

from verifier.grader import ScoringFault
from verifier.network.endpoint import Endpoint

PATH = "/chat/completions"
BYTES_PER_TOKEN = 4  # an estimate, for endpoints that do not report their usage


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str


class Reply(msgspec.Struct, frozen=True):
    text: str
    """Empty when the model refused, or said nothing."""
    cut: bool
    """The answer ended at max_tokens."""


class _Content(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Content
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


_decoder = msgspec.json.Decoder(_Completion)


async def complete(
    endpoint: Endpoint, messages: Sequence[Message], *, temperature: float | None, max_tokens: int | None, as_json: bool
) -> Reply:
    """Ask the endpoint's model, and count the tokens. Raises ScoringFault.

    temperature, max_tokens: not sent when None. as_json: the server is told to let the model write nothing but JSON.
    """
    if endpoint.settings.model is None:
        raise ScoringFault(f'endpoint "{endpoint.name}" has no model; set verifier.endpoints.{endpoint.name}.model')
    body: dict[str, Any] = {"model": endpoint.settings.model, "messages": list(messages)}
    if temperature is not None:
        body["temperature"] = temperature
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if as_json:
        body["response_format"] = {"type": "json_object"}
    completion = await endpoint.post(body, _read, path=PATH)
    choice = completion.choices[0]
    text = choice.message.content or ""
    if (usage := completion.usage) is not None:
        endpoint.budget.spend_tokens(max(0, usage.prompt_tokens), max(0, usage.completion_tokens))
    else:
        asked = sum(len(message.content.encode()) for message in messages)
        endpoint.budget.spend_tokens(asked // BYTES_PER_TOKEN, len(text.encode()) // BYTES_PER_TOKEN)
    return Reply(text, cut=choice.finish_reason == "length")


def _read(content: bytes) -> _Completion:
    completion = _decoder.decode(content)
    if not completion.choices:
        raise ValueError("it has no choices")
    return completion
