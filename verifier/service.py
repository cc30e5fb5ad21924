"""The verifier as a whole: the pool, the HTTP service before it and, in a run, the stream worker that calls it."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import uvicorn

import services.graders
from services.config.verifier import VerifierConfig
from services.errors import InputError
from verifier.cache import Shelf
from verifier.grading import Grading
from verifier.http.app import create_app
from verifier.http.auth import Tokens, tokens_of
from verifier.http.middleware import Front
from verifier.network.endpoints import Endpoints
from verifier.pool.pool import GraderPool
from verifier.registry import Catalogue, catalogue
from verifier.sandbox.probe import environment_for_graders, probe
from verifier.worker.loop import StreamWorker, VerifierStreams

LAST_ANSWERS_S = 30  # requests of others that are still being scored when the service stops may take so long

log = logging.getLogger("ratchet.verifier")


class Server(uvicorn.Server):
    """uvicorn in a process that handles signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: VerifierConfig,
    *,
    streams: VerifierStreams | None,
    stop: asyncio.Event,
    on_ready: Callable[[str], None],
    shelf: Shelf | None = None,
    entries: Catalogue | None = None,
) -> None:
    """Runs until `stop` is set, then finishes what it has claimed and returns.

    streams: None for the HTTP service alone. on_ready gets the URL under which this machine reaches the service, once
    it answers. shelf: verdicts known already; None: none are kept. Raises InputError when the address cannot be had or a
    certificate or token is missing, before anything is started.
    """
    tokens = Tokens(tokens_of()) if settings.authentication == "bearer" else None
    check_certificate(settings)
    with closing(listen(settings.host, settings.port)) as listener:
        async with Endpoints(settings.endpoints) as endpoints, grading(settings, endpoints, shelf, entries) as desk:
            config = uvicorn.Config(
                Front(create_app(settings, desk), tokens, log_all=settings.log_requests == "all"),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=LAST_ANSWERS_S,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
            )
            server = Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            pool_failure = asyncio.create_task(desk.pool.failed())
            try:
                await either(until_started(server), serving)
                scheme = "http" if settings.tls_certificate is None else "https"
                url = reachable_url(settings.host, listener.getsockname()[1], scheme)
                on_ready(url)
                if streams is None:
                    await either(stop.wait(), serving, pool_failure)
                else:
                    worker = StreamWorker(settings, streams, url if settings.url is None else settings.url)
                    await either(worker.run(stop), serving, pool_failure)
            finally:
                pool_failure.cancel()
                server.should_exit = True
                await serving


@asynccontextmanager
async def grading(
    settings: VerifierConfig,
    endpoints: Endpoints,
    shelf: Shelf | None = None,
    entries: Catalogue | None = None,
) -> AsyncIterator[Grading]:
    """All that judges, without the HTTP service. entries: the graders; None: all that are installed are looked at."""
    found = (
        services.graders.graders() if entries is None else {entry.name: entry.location for entry in entries.values()}
    )
    environment = await asyncio.to_thread(_sandbox, settings) if "code" in found else {}
    async with GraderPool(settings, found, environment) as pool:
        if entries is None:
            entries = await catalogue(found)
        for entry in entries.values():
            if entry.fault:
                log.warning("grader %s cannot be used: %s", entry.name, entry.fault)
        yield Grading(settings, entries, pool, endpoints, shelf)


def _sandbox(settings: VerifierConfig) -> dict[str, str]:
    """Environment of the grader processes. What is missing for code is said now, and again with each item of it."""
    if missing := probe(settings.sandbox).missing:
        log.warning("grader code cannot be used: %s", missing)
    return environment_for_graders(settings.sandbox)


def check_certificate(settings: VerifierConfig) -> None:
    """Raises InputError."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as fault:
        raise InputError(
            f"verifier.tls_certificate = {settings.tls_certificate} and verifier.tls_key = {settings.tls_key} cannot be "
            f"used: {fault}. Give PEM files that belong together"
        ) from fault


async def either(work: Coroutine[Any, Any, Any], *others: "asyncio.Task[None]") -> None:
    """Wait for `work`. Should one of the others end first, it ends too, and what ended the other is raised."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task, *others}, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            if other.done() and not task.done():
                other.result()
                raise RuntimeError("the HTTP server stopped by itself")
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    task.result()


async def until_started(server: Server) -> None:
    while not server.started:
        await asyncio.sleep(0.01)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError naming the address and what to do."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=512)
    except (OSError, UnicodeError) as fault:
        raise InputError(
            f"the verifier cannot listen on {host}:{port}: {fault}. Set verifier.host to an address of this machine and "
            "verifier.port to one that is free, or to 0 for any"
        ) from fault
    # asyncio does this only for sockets made with an explicit protocol; without it an answer waits 40 ms for an
    # acknowledgement of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def reachable_url(host: str, port: int, scheme: str = "http") -> str:
    """From this machine: a service that listens on all addresses is reached on the loopback one."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
