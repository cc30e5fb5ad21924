"""Tool `mcp`: the tools of a server that speaks the Model Context Protocol, over its standard streams or streamable HTTP.

Each conversation has a session of its own, and a server of its own where a command starts it, so that no conversation sees what
another one did. The session lives in a task of its own: the library wants it begun and ended in one task.
"""

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from rollout.environments.executable import why_not
from rollout.environments.tools.function import Function, ToolError
from services.config.tools import McpTool
from services.errors import InputError, RatchetError, first_of

KILLED_S = 5.0
"""How long the library may take to kill a server; it waits 2 s for it to end by itself."""

log = logging.getLogger("ratchet.rollout")


class Mcp:
    def __init__(self, settings: McpTool, place: str) -> None:
        """place: of the settings, for errors."""
        self._settings = settings
        self._place = place
        if importlib.util.find_spec("mcp") is None:
            raise InputError(f'{place}.type = "mcp" needs a package: pip install "ratchet[mcp]"')
        if settings.command and (fault := why_not(settings.command[0])):
            raise InputError(f"{place}.command = {list(settings.command)}: {fault}")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Function]]:
        """Waits for: the server's start, and its end.

        Until: the tool's `seconds` for each, and 5 s (KILLED_S) more for a server that does not end.
        Ended by: its list of tools, its fault, or that time, which is a fault of the environment.
        Metric: ratchet_rollout_environment_seconds.
        """
        listed: asyncio.Future[Sequence[Function]] = asyncio.get_running_loop().create_future()
        closing = asyncio.Event()
        session = asyncio.create_task(self._session(listed, closing))
        either: list[asyncio.Future[Any]] = [session, listed]
        try:
            await self._listed(either)
            if not listed.done():
                raise self._silent(session.exception())
            yield listed.result()
        finally:
            closing.set()
            with suppress(asyncio.CancelledError):
                if listed.done():  # otherwise it is not there to be asked
                    await asyncio.wait({session}, timeout=self._settings.seconds)
                session.cancel()
                await asyncio.wait({session}, timeout=KILLED_S)
            if listed.done() and session.done() and not session.cancelled() and (fault := session.exception()):
                log.warning("%s: %s", self._place, first_of(fault))

    async def _listed(self, either: Sequence["asyncio.Future[Any]"]) -> None:
        """Waits for: the server's list of tools, or its end.

        Until: the tool's `seconds`.
        Ended by: either, or that time, which is a fault of the environment.
        Metric: ratchet_rollout_environment_seconds.
        """
        try:
            async with asyncio.timeout(self._settings.seconds):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise RatchetError(
                f"{self._server_place} did not list its tools within seconds = {self._settings.seconds:g}; raise that if it only "
                "starts slowly"
            ) from None

    @property
    def _server_place(self) -> str:
        """The server, as the settings name it."""
        settings = self._settings
        named = f'url = "{settings.url}"' if settings.url is not None else f"command = {list(settings.command)}"
        return f"{self._place}.{named}: the server"

    def _silent(self, fault: BaseException | None) -> RatchetError:
        """What is said of a server that listed no tools."""
        if fault is None:
            return RatchetError(f"{self._server_place} ended before it listed its tools")
        cause = first_of(fault)
        asked = "correct the address, or start it" if self._settings.url else "run it by hand to see why"
        return RatchetError(
            f"{self._server_place} did not list its tools: {str(cause) or type(cause).__name__}; {asked}"
        )

    async def _session(self, listed: "asyncio.Future[Sequence[Function]]", closing: asyncio.Event) -> None:
        """Hold a session, from its begin to its end.

        Waits for: the end of the conversation.
        Until: it is closed.
        Ended by: `closing`, or a fault of the session.
        Metric: ratchet_rollout_open_conversations.
        """
        from mcp import Client

        # read_timeout_seconds: the library waits for ever by default.
        async with Client(self._server(), read_timeout_seconds=self._settings.seconds) as client:
            tools = await _all_tools(client)
            try:
                listed.set_result(self._functions(client, tools))
            except InputError as fault:  # raised here, the library would wrap it
                listed.set_exception(fault)
                return
            await closing.wait()

    def _server(self) -> Any:
        from mcp import StdioServerParameters

        settings = self._settings
        if settings.url is not None:
            return settings.url
        # Of our environment the library passes on PATH, HOME and their like alone.
        return StdioServerParameters(
            command=settings.command[0], args=list(settings.command[1:]), env=dict(settings.environment) or None
        )

    def _functions(self, client: Any, tools: Sequence[Any]) -> list[Function]:
        names = [tool.name for tool in tools]
        if not names:
            raise InputError(f"{self._server_place} has no tools; correct the place, or leave this section out")
        if missing := sorted(set(self._settings.only) - set(names)):
            raise InputError(
                f"{self._place}.only: the server has no tool {missing[0]}; it has {', '.join(names) or 'none'}"
            )
        return [
            Function(
                tool.name,
                tool.description or "",
                tool.input_schema,
                partial(_call, client, tool.name),
                self._settings.seconds,
            )
            for tool in tools
            if not self._settings.only or tool.name in self._settings.only
        ]


async def _all_tools(client: Any) -> list[Any]:
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if (cursor := page.next_cursor) is None:
            return tools


async def _call(client: Any, name: str, arguments: dict[str, Any]) -> str:
    """What the server answers, as text. Raises ToolError where it says that the call failed."""
    result = await client.call_tool(name, arguments)
    said = "\n".join(getattr(part, "text", f"({part.type} left out)") for part in result.content)
    if result.is_error:
        raise ToolError(said or "the call failed")
    return said or "(nothing)"
