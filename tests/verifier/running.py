"""A verifier for one test: real sockets, real uvicorn, real grader processes, on a loop in its own thread."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from services.config.verifier import VerifierConfig
from tests.verifier.bad_graders import REGISTRY
from verifier.cache import MemoryShelf
from verifier.registry import Catalogue, catalogue
from verifier.service import serve
from verifier.worker.loop import VerifierStreams


@cache
def registry() -> Catalogue:
    """The entries of the graders, found out once: a process that imports them all is slow."""
    return asyncio.run(catalogue(REGISTRY))


class Running:
    def __init__(self, settings: VerifierConfig, streams: VerifierStreams | None) -> None:
        self._settings = settings
        self._streams = streams
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        self.url = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Running":
        self._thread.start()
        assert self._ready.wait(30)
        if self._fault is not None:
            raise self._fault
        return self

    def stop(self) -> None:
        """Raises what the service raised."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the verifier did not stop"
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        def on_ready(url: str) -> None:
            self.url = url
            self._ready.set()

        work = serve(
            self._settings,
            streams=self._streams,
            stop=self._stop,
            on_ready=on_ready,
            shelf=MemoryShelf(1000),
            entries=registry(),
        )
        try:
            self._loop.run_until_complete(work)
        except BaseException as fault:
            self._fault = fault
        finally:
            self._ready.set()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


@contextmanager
def running(streams: VerifierStreams | None = None, **settings: object) -> Iterator[Running]:
    given = {"item_deadline_s": 0.5, "processes": 1} | settings
    verifier = Running(VerifierConfig.model_validate(given), streams).start()
    try:
        yield verifier
    finally:
        verifier.stop()
