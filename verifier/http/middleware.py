"""What every request passes first: an id, the caller's name and the right to ask; afterwards, one line in the log."""

import logging
import re
import uuid
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.clock import now_s
from services.log_lines import with_fields
from verifier import metrics
from verifier.contract import Refusal
from verifier.http.auth import BearerTokens
from verifier.http.head import TOO_LARGE, too_large

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
REQUEST_ID = b"x-request-id"
VERDICTS = ("error", "timeout", "incorrect", "correct")
"""In the order in which a log line counts them."""

log = logging.getLogger("ratchet.verifier.requests")


class Front:
    """Puts into scope["state"]: request_id, caller, and an empty `tally`, which the route fills for the log."""

    def __init__(self, app: ASGIApp, tokens: BearerTokens | None, *, log_all: bool) -> None:
        """tokens: None lets every caller in. log_all: log requests in which nothing went wrong, too."""
        self._app = app
        self._tokens = tokens
        self._log_all = log_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(REQUEST_ID, b"")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex.encode()
        caller = self._caller(scope, headers)
        tally: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=request_id.decode(), caller=caller or "", tally=tally)
        start_s, status = now_s(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id)]
            await send(message)

        try:
            if too_large(scope):
                await refuse_entry(send_with_id, 431, TOO_LARGE)
            elif caller is None:
                advice = "send one of the service's tokens: Authorization: Bearer TOKEN"
                await refuse_entry(send_with_id, 401, advice, (b"www-authenticate", b"Bearer"))
            else:
                await self._app(scope, receive, send_with_id)
        finally:
            self._log(scope, status, tally, now_s() - start_s)

    def _caller(self, scope: Scope, headers: dict[bytes, bytes]) -> str | None:
        """The caller's name; None when it may not ask. Paths outside /v1 are open: health and metrics say nothing about
        responses."""
        if self._tokens is None or not scope["path"].startswith("/v1/"):
            return str(scope["client"][0]) if scope.get("client") else ""
        return self._tokens.caller_of(headers.get(b"authorization", b""))

    def _log(self, scope: MutableMapping[str, Any], status: int, tally: dict[str, Any], seconds: float) -> None:
        trouble = status >= 400 or status == 0 or tally.get("error") or tally.get("timeout")
        if not (trouble or self._log_all):
            return
        state = scope["state"]
        line = {
            "request_id": state["request_id"],
            "caller": state["caller"],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 4),
            **tally,
        }
        log.log(logging.WARNING if trouble else logging.INFO, "%s", _said(line), extra=with_fields(**line))


def _said(line: Mapping[str, Any]) -> str:
    """The line about a request in words, on one line whatever the request holds."""
    counts = ", ".join(f"{line[verdict]} {verdict}" for verdict in VERDICTS if line.get(verdict))
    without = sum(line.get(verdict, 0) for verdict in ("error", "timeout"))
    what = f"status {line['status']}" if line["status"] else "no answer"
    if without:
        what = f"no verdict on {without} of {line['items']} responses ({counts})"
    elif counts:
        what = f"{line['items']} responses ({counts})"
    asked = f"{line['method']} {quote(line['path'])} of {line['caller'] or 'nobody known'}"
    return f"{what}: {asked}, {line['seconds']:.3f} s, request {line['request_id']}"


async def refuse_entry(send: Send, status: int, error: str, *more: tuple[bytes, bytes]) -> None:
    """more: headers of the answer."""
    metrics.REQUESTS_REFUSED.labels(str(status)).inc()
    body = msgspec.json.encode(Refusal(error, "$"))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    headers.append((b"connection", b"close"))  # the rest of such a request is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
