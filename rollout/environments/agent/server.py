"""The API that agents see: POST /v1/chat/completions, POST /v1/responses and GET /v1/models on a loopback address, one server for
each loop of environments, and one key for each conversation, by which its requests are known.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rollout.environments.agent import chat, responses
from rollout.environments.agent.request import BadRequest, Said
from rollout.environments.agent.request import Request as AgentRequest
from services.http_server import HttpServer

MOST_BYTES = 32 * 2**20
"""Size of the largest request."""

log = logging.getLogger("ratchet.rollout")


class Over(Exception):
    """The conversation has ended before the request was answered."""


@dataclass(eq=False)
class Asked:
    """A request that waits for its answer."""

    request: AgentRequest
    written: Callable[[Said], Response]
    """The answer as the API writes it by which this was asked."""
    answer: "asyncio.Future[Response]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def hear(self, said: Said) -> None:
        """Answer it, unless the agent has given up."""
        if not self.answer.done():
            self.answer.set_result(self.written(said))


@dataclass(eq=False)
class Line:
    """What one conversation's agent asks."""

    key: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    asked: "asyncio.Queue[Asked]" = field(default_factory=asyncio.Queue)
    waiting: set[Asked] = field(default_factory=set)
    histories: responses.Histories = field(default_factory=dict)
    """What was said up to each answer of /v1/responses."""

    def hang_up(self) -> None:
        """Tell all requests without an answer that there will be none."""
        for asked in self.waiting:
            if not asked.answer.done():
                asked.answer.set_exception(Over("the conversation is over"))


class AgentServer:
    """Serves the agents of one loop."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        routes = [
            Route("/v1/chat/completions", partial(self._answer, _by_chat), methods=["POST"]),
            Route("/v1/responses", partial(self._answer, _by_responses), methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
        ]
        self._server = HttpServer(
            uvicorn.Config(Starlette(routes=routes), log_config=None, access_log=False, lifespan="off", ws="none")
        )
        self._serving = asyncio.get_running_loop().create_task(self._serve())
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def open(self) -> Line:
        line = Line()
        self._lines[line.key] = line
        return line

    def close(self, line: Line) -> None:
        self._lines.pop(line.key, None)
        line.hang_up()

    async def _serve(self) -> None:
        """Serve until the loop ends, and close what is open then."""
        with contextlib.closing(self._listener):
            try:
                await self._server.serve(sockets=[self._listener])
            finally:
                if self._server.started:
                    self._server.force_exit = True  # requests without an answer get none
                    await self._server.shutdown([self._listener])

    async def _answer(self, read: "Callable[[Any, Line], Asked]", request: Request) -> Response:
        """Answer one request. read: what is asked, of its body.

        Waits for: the policy, and the requests before it.
        Until: the conversation ends.
        Ended by: the policy's message, or the end of the conversation.
        Metric: ratchet_rollout_open_conversations.
        """
        line = self._line_of(request)
        if line is None:
            return _refused(401, "this key belongs to no conversation that goes on", "invalid_api_key")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return _refused(413, f"a request has at most {MOST_BYTES} bytes", "too_large")
        try:
            asked = read(json.loads(body), line)
        except BadRequest as fault:
            return _refused(400, str(fault), "invalid_request", fault.place)
        except (ValueError, RecursionError) as fault:
            return _refused(400, f"the body is not JSON: {fault}", "invalid_request")
        line.waiting.add(asked)
        line.asked.put_nowait(asked)
        try:
            return await asked.answer
        except Over as over:
            return _refused(400, str(over), "conversation_over")
        finally:
            line.waiting.discard(asked)

    async def _models(self, request: Request) -> JSONResponse:
        if self._line_of(request) is None:
            return _refused(401, "this key belongs to no conversation that goes on", "invalid_api_key")
        model = {"id": "policy", "object": "model", "created": 0, "owned_by": "ratchet"}
        return JSONResponse({"object": "list", "data": [model]})

    def _line_of(self, request: Request) -> Line | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return self._lines.get(key.strip()) if scheme.lower() == "bearer" else None


def _by_chat(body: Any, line: Line) -> Asked:
    request = chat.read_request(body)

    def written(said: Said) -> Response:
        answer = chat.completion(said, request.model)
        if not body.get("stream"):
            return JSONResponse(answer)
        return _stream([*map(json.dumps, chat.chunks(body, answer)), "[DONE]"])

    return Asked(request, written)


def _by_responses(body: Any, line: Line) -> Asked:
    request = responses.read_request(body, line.histories)

    def written(said: Said) -> Response:
        answer = responses.response(said, request, body, line.histories)
        if not body.get("stream"):
            return JSONResponse(answer)
        return _stream(map(json.dumps, responses.events(answer)))

    return Asked(request, written)


def _stream(payloads: Iterable[str]) -> Response:
    """Server-sent events. OpenAI's client reads the type of an event in its JSON."""
    return Response("".join(f"data: {one}\n\n" for one in payloads), media_type="text/event-stream")


_servers: "WeakKeyDictionary[asyncio.AbstractEventLoop, AgentServer]" = WeakKeyDictionary()


def server_of_this_loop() -> AgentServer:
    """The server of the environments' loop, begun with the first conversation. It ends with the loop."""
    loop = asyncio.get_running_loop()
    if loop not in _servers:
        _servers[loop] = AgentServer()
        log.info("agents reach the policy at %s", _servers[loop].base_url)
    return _servers[loop]


def _refused(status: int, said: str, code: str, place: str | None = None) -> JSONResponse:
    error = {"message": said, "type": "invalid_request_error", "param": place, "code": code}
    return JSONResponse({"error": error}, status)
