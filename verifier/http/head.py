"""The head of a request, its first line and its headers: how long it may take to come and how large it may be.

uvicorn's parsers have no deadline, and one of them no bound. A client that sends a head byte by byte would hold its
connection, and memory, for ever.
"""

import asyncio
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST_HEADERS = 100
MOST_HEAD_BYTES = 16 * 2**10
TOO_LARGE = f"the headers are more than {MOST_HEADERS}, or {MOST_HEAD_BYTES} bytes"
_REFUSAL = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def too_large(scope: Scope) -> bool:
    """Whether the head of a request that has come is larger than allowed."""
    headers = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    return len(headers) > MOST_HEADERS or size + len(scope.get("raw_path") or b"") > MOST_HEAD_BYTES


def protocol(deadline_s: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with bounds on heads. deadline_s: for one head, from its first byte or the connection."""

    class HeadGuard(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """Closes a connection whose head does not come in time, or that sends too much of one."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._head_bytes = 0
            self._late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._await_head()

        def connection_lost(self, fault: Exception | None) -> None:
            self._head_came()
            super().connection_lost(fault)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            if (
                before is not None and not before.response_complete
            ):  # a body, or the next request before this one's answer
                super().data_received(data)
                return
            self._await_head()
            self._head_bytes += len(data)
            super().data_received(data)
            if self.cycle is not before:
                self._head_came()
            elif self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

        def _await_head(self) -> None:
            if self._late is None:
                self._late = asyncio.get_running_loop().call_later(deadline_s, self._refuse, b"408 Request Timeout")

        def _head_came(self) -> None:
            if self._late is not None:
                self._late.cancel()
            self._late = None
            self._head_bytes = 0

        def _refuse(self, status: bytes) -> None:
            if not self.transport.is_closing():
                self.transport.write(_REFUSAL % status)
                self.transport.close()

    return HeadGuard
