"""A local HTTP server that speaks OpenAI's chat completions, or anything else that it is told to: scripted, request by request.

    with OpenAIServer(status(429, {"Retry-After": "1"}), says("...")) as server:
        ...
        assert server.requests[0].body["model"] == "m"

Each request takes the next step of the script, and the last step serves all that follow.
"""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL_SAYS_CORRECT = '{"reason": "same value", "verdict": "correct"}'
MODEL_SAYS_INCORRECT = '{"reason": "another value", "verdict": "incorrect"}'


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: Any
    at_s: float

    @property
    def prompt(self) -> str:
        """All messages, one after another."""
        return "\n".join(message["content"] for message in self.body["messages"])


class Exchange:
    """One request being answered, in the hands of a step."""

    def __init__(self, handler: BaseHTTPRequestHandler, received: Received, closing: threading.Event) -> None:
        self._handler = handler
        self.received = received
        self._closing = closing

    def sleep(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def send(
        self, code: int, body: bytes, headers: Mapping[str, str] = {}, *, promised_bytes: int | None = None
    ) -> None:
        self._handler.send_response(code)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body) if promised_bytes is None else promised_bytes))
        self._handler.end_headers()
        self._handler.wfile.write(body)
        self._handler.wfile.flush()

    def write(self, part: bytes) -> None:
        self._handler.wfile.write(part)
        self._handler.wfile.flush()

    def cut(self) -> None:
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)


Step = Callable[[Exchange], None]


def completion(text: str | None, *, finish_reason: str = "stop", tokens: tuple[int, int] | None = (100, 10)) -> bytes:
    page: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish_reason,
                "logprobs": None,
            }
        ],
    }
    if tokens is not None:
        page["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return json.dumps(page).encode()


def says(text: str | None, **how: Any) -> Step:
    return lambda exchange: exchange.send(200, completion(text, **how))


def decides(decide: Callable[[Received], str]) -> Step:
    return lambda exchange: exchange.send(200, completion(decide(exchange.received)))


def status(code: int, headers: Mapping[str, str] = {}, body: Any = None) -> Step:
    page = body if isinstance(body, bytes) else json.dumps(body or {"error": {"message": "no", "type": "t"}}).encode()
    return lambda exchange: exchange.send(code, page, headers)


def late(seconds: float, then: Step) -> Step:
    def step(exchange: Exchange) -> None:
        exchange.sleep(seconds)
        then(exchange)

    return step


def hangs(exchange: Exchange) -> None:
    exchange.sleep(60)
    exchange.cut()


def cuts(exchange: Exchange) -> None:
    """The connection ends in the middle of the answer."""
    exchange.send(200, completion(MODEL_SAYS_CORRECT)[:40], promised_bytes=400)
    exchange.cut()


def hangs_up(exchange: Exchange) -> None:
    """No answer at all."""
    exchange.cut()


def drips(exchange: Exchange) -> None:
    """A byte now and then, for ever: each read is quick, the whole is not."""
    exchange.send(200, b"", promised_bytes=10**6)
    for _ in range(1200):
        exchange.write(b" ")
        exchange.sleep(0.05)


def floods(exchange: Exchange) -> None:
    exchange.send(200, b"", promised_bytes=10**9)
    for _ in range(1000):
        exchange.write(b" " * 2**16)


def bomb(exchange: Exchange) -> None:
    """A small body that unpacks to 64 MiB, sent although no compression was accepted."""
    exchange.send(200, gzip.compress(b" " * 2**26, 1), {"Content-Encoding": "gzip"})


class OpenAIServer:
    def __init__(self, *script: Step) -> None:
        self.script = list(script) or [says(MODEL_SAYS_CORRECT)]
        self.requests: list[Received] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.connections = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with fake._lock:
                    fake.connections += 1

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                received = Received(self.path, dict(self.headers.items()), json.loads(raw), time.monotonic())
                with fake._lock:
                    step = fake.script[min(len(fake.requests), len(fake.script) - 1)]
                    fake.requests.append(received)
                    fake.in_flight += 1
                    fake.most_in_flight = max(fake.most_in_flight, fake.in_flight)
                try:
                    step(Exchange(self, received, fake._closing))
                except OSError:
                    self.close_connection = True  # the client went away
                finally:
                    with fake._lock:
                        fake.in_flight -= 1

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away in the middle of a request is part of some scripts."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


def unused_url() -> str:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"
