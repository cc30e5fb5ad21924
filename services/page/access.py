"""Who may see the page: whoever has the token of the run's folder. It comes once in the address and from then on in a cookie."""

import hashlib
import hmac
import os
import secrets
from html import escape
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import InputError

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NO_TOKEN = "This page needs the token of its run: open the address that `ratchet up` or `ratchet page` printed."
ENTRANCE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Ratchet: token needed</title>
<main><h1>Token needed</h1><p>{said}</p>
<p>If this browser has been here before, <a href="{again}">open the page again</a>: it does not show who you are to a page that
was reached from another site.</p>
<form method="get" action="/">{hidden}<label>Token <input name="token" type="password" autocomplete="off" required></label>
<button>Open</button></form></main></html>
"""


def token_of(path: Path) -> str:
    """The token in this file, which is made for this user alone if it is missing. Raises InputError if it cannot be."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if found := path.read_text(encoding="utf-8").strip():
            return found
        raise InputError(f"{path} is empty; delete it, and a new token is made") from None
    except OSError as fault:
        raise InputError(f"the page's token cannot be written to {path}: {fault.strerror}") from fault
    token = secrets.token_urlsafe(32)
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        opened.write(token)
    return token


class Guard:
    """Middleware that lets requests through that have the token, and gives every answer the headers that keep it private."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token
        # Cookies do not tell ports apart: two runs on one host need two names.
        self._cookie = f"ratchet_{hashlib.sha256(token.encode()).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_private)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that does not come to the page; None: it does."""
        if request.url.path == "/healthz":
            return None
        given = request.query_params.get("token")
        if given is not None and request.method == "GET" and self._is_right(given):
            rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
            entered = RedirectResponse(f"/?{urlencode(rest)}" if rest else "/", status_code=303)
            entered.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return entered
        if not self._is_right(request.cookies.get(self._cookie, "")):
            said = "That is not the token of this run. " + NO_TOKEN if given is not None else NO_TOKEN
            return _entrance(request, said) if request.url.path == "/" else PlainTextResponse(f"{said}\n", 401)
        if request.method not in ("GET", "HEAD") and not _is_own(request):
            return PlainTextResponse(
                "Only the page itself may ask for this: the request comes from another site.\n", 403
            )
        return None

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _is_own(request: Request) -> bool:
    """Whether a page of this very host and port sent the request. A proxy before it may have taken the TLS off."""
    host = request.headers.get("host")
    return host is not None and urlsplit(request.headers.get("origin", "")).netloc == host


def _entrance(request: Request, said: str) -> Response:
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
    hidden = "".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in rest)
    page = ENTRANCE.format(said=escape(said), again=escape(f"/?{urlencode(rest)}"), hidden=hidden)
    return Response(page, 401, media_type="text/html")
