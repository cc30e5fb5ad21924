"""Networks that can be cut and slowed: TCP relays of one thread, each between a service and what it talks to."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Ends]]
CHUNK = 65536


class Wire:
    """Listens on a port of this machine and carries bytes both ways, until it is told otherwise."""

    def __init__(self, loop: asyncio.AbstractEventLoop, to: Connect) -> None:
        self._loop = loop
        self._to = to
        self._carries = asyncio.Event()
        self._carries.set()
        self._delay_s = 0.0
        self._canned: bytes | None = None
        self._conversations: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self, listener: socket.socket | None = None) -> None:
        """listener: accepts connections already; by default one on a free port of this machine."""
        if listener is None:
            self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        else:
            self._server = await asyncio.start_server(self._converse, sock=listener)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Carry nothing, as a switch without power does: both ends take their connections for alive."""
        self._loop.call_soon_threadsafe(self._carries.clear)

    def slow(self, delay_s: float) -> None:
        """Carry every piece so much later."""
        self._loop.call_soon_threadsafe(setattr, self, "_delay_s", delay_s)

    def answer(self, canned: bytes) -> None:
        """Answer each request with these bytes and close, in place of carrying it; without bytes never answer."""
        self._loop.call_soon_threadsafe(self._hang_up, canned)

    def mend(self) -> None:
        """Carry everything at once again."""
        self.slow(0.0)
        self._loop.call_soon_threadsafe(self._hang_up, None)
        self._loop.call_soon_threadsafe(self._carries.set)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def _hang_up(self, canned: bytes | None) -> None:
        """Change what requests are answered with; open connections end where that is something else."""
        if self._canned != canned:
            self._canned = canned
            for task in self._conversations:
                task.cancel()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            if self._canned is not None:
                await self._answer(reader, writer, self._canned)
                return
            far_reader, far = await self._to()
            pumps = [asyncio.create_task(self._pump(*ends)) for ends in ((reader, far), (far_reader, writer))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the far end is not there, or this wire was hung up: the near end sees its connection close
        finally:
            self._conversations.discard(task)
            for one in (writer, far):
                if one is not None:
                    one.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, canned: bytes) -> None:
        await reader.read(CHUNK)
        if not canned:
            await asyncio.sleep(3600)
        writer.write(canned)
        with contextlib.suppress(OSError):
            await writer.drain()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            await self._carries.wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            sink.write(data)
            await sink.drain()


class Wires:
    """All relays of a run, and the thread that works for them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._wires: list[Wire] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()

    def to_socket(self, path: str, listener: socket.socket | None = None) -> Wire:
        """A wire to a server behind a unix socket. listener: see Wire.listen."""
        return self.to(lambda: asyncio.open_unix_connection(path), listener)

    def to(self, connect: Connect, listener: socket.socket | None = None) -> Wire:
        """A wire to what this connects to, once for each connection."""
        wire = Wire(self._loop, connect)
        self._run(wire.listen(listener))
        self._wires.append(wire)
        return wire

    def close(self) -> None:
        for wire in self._wires:
            self._run(wire.close())
        self._run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
