"""uvicorn in a process that handles signals itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class HttpServer(uvicorn.Server):
    """Ends when its `should_exit` is set. Left to itself uvicorn takes SIGTERM and SIGINT, and passes them on at its end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
