"""The verifier as a whole: what judges, the HTTP service before it and, in a run, the stream worker that calls it."""

import asyncio
from collections.abc import Callable
from contextlib import closing

from services.config.verifier import VerifierConfig
from services.verifier_access import tokens_of
from verifier.cache import Shelf
from verifier.grading import open_grading
from verifier.http.app import create_app
from verifier.http.auth import BearerTokens
from verifier.http.listening import listen, reachable_url
from verifier.http.middleware import Front
from verifier.http.server import Server
from verifier.http.tls import check_certificate
from verifier.network.endpoints import Endpoints
from verifier.registry import Catalogue
from verifier.supervised import supervised
from verifier.worker.loop import StreamWorker, VerifierStreams
from verifier.worker.own_service import OwnService


async def serve(
    settings: VerifierConfig,
    *,
    streams: VerifierStreams | None,
    stop: asyncio.Event,
    on_ready: Callable[[str], None],
    shelf: Shelf | None = None,
    entries: Catalogue | None = None,
    run: str | None = None,
) -> None:
    """Runs the verifier, and finishes what it has claimed before it returns.

    streams: None for the HTTP service alone. on_ready: called with the URL under which this machine reaches the service,
    once it answers. shelf: where verdicts are kept; None: they are not. entries: the graders; None: all that are installed.
    run: the name of the run, a label of the metrics; None: the service serves anyone.
    Raises InputError when the address cannot be used or a certificate or token is missing, before anything is started.

    Waits for: requests and groups of trajectories.
    Until: it is stopped.
    Ended by: `stop`, or an error of the server, the pool or the worker.
    Metric: ratchet_waiting{room="verifier", awaiting="trajectories"} in a run; none for the HTTP service alone.
    """
    tokens = BearerTokens(tokens_of()) if settings.authentication == "bearer" else None
    check_certificate(settings)
    with closing(listen(settings.host, settings.port)) as listener:
        async with (
            Endpoints(settings.endpoints) as endpoints,
            open_grading(settings, endpoints, shelf, entries) as grading,
        ):
            app = Front(create_app(settings, grading, run=run), tokens, log_all=settings.log_requests == "all")
            server = Server(app, settings)
            serving = asyncio.create_task(server.run_on(listener))
            pool_failure = asyncio.create_task(grading.pool.failed())
            try:
                await supervised(server.until_started(), serving)
                scheme = "http" if settings.tls_certificate is None else "https"
                url = reachable_url(settings.host, listener.getsockname()[1], scheme)
                on_ready(url)
                if streams is None:
                    await supervised(stop.wait(), serving, pool_failure)
                else:
                    own = OwnService(app) if settings.url is None else None
                    worker = StreamWorker(settings, streams, url if settings.url is None else settings.url, own)
                    await supervised(worker.run(stop), serving, pool_failure)
            finally:
                pool_failure.cancel()
                server.should_exit = True
                await serving
