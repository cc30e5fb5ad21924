"""The server of the verifier's HTTP service."""

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp

from services.config.verifier import VerifierConfig
from services.http_server import HttpServer
from services.metrics import waiting
from verifier.http.head import protocol

LAST_ANSWERS_S = 30  # how long requests of others that are still being scored may take when the service stops


class Server(HttpServer):
    def __init__(self, app: ASGIApp, settings: VerifierConfig) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol(settings.read_deadline_s),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=LAST_ANSWERS_S,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
            )
        )

    async def run_on(self, listener: socket.socket) -> None:
        """Serves on this socket.

        Waits for: requests.
        Until: it is stopped, by `should_exit`; then LAST_ANSWERS_S for the answers that are owed.
        Ended by: `should_exit`, or an error of the server.
        Metric: none: having nothing to do is no one's wait.
        """
        await self.serve(sockets=[listener])

    async def until_started(self) -> None:
        """Returns once the server accepts connections.

        Waits for: uvicorn's start.
        Until: no deadline of its own; the caller gives up when `run_on` ends.
        Ended by: the start, or cancellation.
        Metric: ratchet_waiting{room="verifier", awaiting="HTTP server"}.
        """
        with waiting("verifier", "HTTP server"):
            while not self.started:
                await asyncio.sleep(0.01)
