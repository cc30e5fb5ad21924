"""One request and its answer over HTTP, and what the answer's status means."""

import time
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from verifier.network.backoff import retry_after_s
from verifier.network.faults import EndpointRefused, RequestFailed, Throttled

THROTTLED = 429
WORTH_REPEATING = {408, 409, 425}  # and every 5xx; any other 4xx would come again
SHOWN_CHARACTERS = 60  # of what the endpoint says, which may quote the graded response
ACTIONS = {
    401: "set api_key_env to the variable with its token",
    403: "its token may not do this; check the one that api_key_env names",
    404: "nothing is served there; check url, and model",
    413: "the request is too large for it",
}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    content: bytes


async def exchange(http: httpx.AsyncClient, url: str, body: bytes, max_answer_bytes: int) -> Answer:
    """Send one request. Raises RequestFailed, also when the answer is larger than max_answer_bytes, whatever its headers say.

    Waits for: the endpoint's answer, to its last byte.
    Until: the caller's deadline; there is none here.
    Ended by: the answer, a broken connection, or cancellation by the caller.
    Metric: ratchet_waiting{room="verifier", awaiting="endpoint answer"}, set by the caller.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        async with http.stream("POST", url, content=body, headers=headers) as response:
            # A few compressed bytes may unpack to gigabytes, and compression was not asked for.
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise RequestFailed("its answer is compressed, although that was not asked for")
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) > max_answer_bytes:
                    raise RequestFailed(f"its answer is larger than max_answer_bytes = {max_answer_bytes}")
            return Answer(response.status_code, response.headers, bytes(content))
    except httpx.TransportError as fault:
        raise RequestFailed(f"{type(fault).__name__}: {fault}"[:200]) from fault


def require_success(endpoint: str, answer: Answer) -> None:
    """Raises Throttled, RequestFailed or EndpointRefused for any status but 2xx."""
    status = answer.status
    if 200 <= status < 300:
        return
    hold_s = retry_after_s(answer.headers, time.time()) or 0.0
    if status == THROTTLED:
        raise Throttled("HTTP 429: too many requests, or its quota is used up", hold_s=hold_s)
    if status in WORTH_REPEATING or status >= 500:
        raise RequestFailed(f"HTTP {status}", hold_s=hold_s)
    if 300 <= status < 400:  # never followed: it would carry the token to wherever the answer says
        raise EndpointRefused(endpoint, status, "it redirects; set url to where it leads")
    action = ACTIONS.get(status, "check what the grader's options and the endpoint's settings make it send")
    said = "" if status in (401, 403) else _said(answer.content)  # some repeat the token
    raise EndpointRefused(endpoint, status, f"{action} ({said})" if said else action)


def _said(content: bytes) -> str:
    """The beginning of the message in an error of OpenAI's, FastAPI's or our own form."""
    try:
        page: Any = msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    text = page.get("error", page.get("detail")) if isinstance(page, dict) else None
    if isinstance(text, dict):
        text = text.get("message")
    return text[:SHOWN_CHARACTERS] if isinstance(text, str) else ""
