"""`/healthz`, `/readyz` and `/metrics` for the services that have no other HTTP interface."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from services.errors import InputError
from services.exposition import metrics_page

Answer = tuple[int, str, bytes]
LONGEST_SILENCE_S = 10.0
"""Seconds after which a request that sends nothing is closed."""


SERVICE_HEADER = "Ratchet-Service"
"""Header of an answer that names the service: who asks an address of a scaled service does not know which replica it has."""


class HealthServer:
    """Serves on threads of its own until it is closed. Port 0 takes any free port, and `url` says which."""

    def __init__(
        self, host: str, port: int, ready: Callable[[], bool], *, run: str | None = None, service: str = ""
    ) -> None:
        """ready: what /readyz answers. run: see `metrics_page`. service: its name, in a header of every answer. Raises InputError
        when the address cannot be bound."""

        class Page(BaseHTTPRequestHandler):
            timeout = LONGEST_SILENCE_S  # without it, a scrape whose other end vanished would keep its thread forever

            def do_GET(self) -> None:
                pages: dict[str, Callable[[], Answer]] = {
                    "/healthz": lambda: (200, "text/plain", b"alive\n"),
                    "/readyz": lambda: (
                        (200, "text/plain", b"ready\n") if ready() else (503, "text/plain", b"not ready\n")
                    ),
                    "/metrics": lambda: (200, CONTENT_TYPE_LATEST, metrics_page(run)),
                }
                page = pages.get(self.path.partition("?")[0])
                status, kind, body = page() if page else (404, "text/plain", b"no such page\n")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if service:
                    self.send_header(SERVICE_HEADER, service)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing: a scrape every few seconds is not worth a line."""

        try:
            self._server = ThreadingHTTPServer((host, port), Page)
        except OSError as fault:
            raise InputError(
                f"cannot serve metrics on {host}:{port}: {fault.strerror}; choose another metrics_port, or 0 for any free one"
            ) from fault
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
