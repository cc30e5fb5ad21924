"""The verifier as a whole: the pool, the HTTP service before it and, in a run, the stream worker that calls it."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import uvicorn

from services.config.verifier import VerifierConfig
from services.errors import InputError
from services.graders import GRADERS
from verifier.app import create_app
from verifier.loop import StreamWorker, VerifierStreams
from verifier.pool import GraderPool

LAST_ANSWERS_S = 30  # requests of others that are still being scored when the service stops may take so long


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
    graders: Mapping[str, str] = GRADERS,
) -> None:
    """Runs until `stop` is set, then finishes what it has claimed and returns.

    streams: None for the HTTP service alone. on_ready gets the URL under which this machine reaches the service, once
    it answers. Raises InputError when the address cannot be had, before anything is started.
    """
    with closing(listen(settings.host, settings.port)) as listener:
        async with GraderPool(settings.processes, settings.item_deadline_s, graders) as pool:
            config = uvicorn.Config(
                create_app(settings, pool),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=LAST_ANSWERS_S,
            )
            server = Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            pool_failure = asyncio.create_task(pool.failed())
            try:
                await either(until_started(server), serving)
                url = reachable_url(settings.host, listener.getsockname()[1])
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


def reachable_url(host: str, port: int) -> str:
    """From this machine: a service that listens on all addresses is reached on the loopback one."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
