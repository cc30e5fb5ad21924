"""Conversations with the environment `tools`, and a small HTTP service for its tools to call."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rollout.environments import Start, Subject, Turn
from rollout.environments.loading import environment_maker
from tests.rollout.conversation.talking import run_config

PROBLEM = Subject(prompt="What is 12 * 7?", reference="84", options={}, row=0, seed=0)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def talk(
    tools: Sequence[Mapping[str, Any]],
    *messages: str,
    services_folder: Path | None = None,
    environment: Mapping[str, Any] = {},
    **options: Any,
) -> tuple[Start, list[Turn]]:
    """How a conversation begins, and what each message is answered."""
    config = run_config(name="tools", tools=list(tools), options=options, **{"turn_s": 60.0, **environment})
    make = environment_maker(config, services_folder)

    async def conversation() -> tuple[Start, list[Turn]]:
        held = make()
        try:
            start = await held.reset(PROBLEM)
            return start, [await held.step({"role": "assistant", "content": text}) for text in messages]
        finally:
            await asyncio.create_task(held.close())  # in a task of its own, as a replica does

    return asyncio.run(conversation())


def answers(*told: Any, **how: Any) -> list[str]:
    """What the messages are answered, one text each."""
    _, turns = talk(*told, **how)
    return [one["content"] for turn in turns for one in turn.messages]


Answer = Callable[[Mapping[str, str], Any], tuple[int, bytes]]
"""(headers, body) -> (status, what is answered)."""


@contextmanager
def service(answer: Answer, **headers: str) -> Iterator[str]:
    """The URL of a service that answers every POST, and GET and HEAD as a POST of {}. headers: of its answers."""

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rest(self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self) -> None:
            self.rest(b"{}")

        def do_HEAD(self) -> None:
            self.rest(b"{}")

        def rest(self, body: bytes) -> None:
            status, said = answer(dict(self.headers), json.loads(body))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(said))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/call"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
