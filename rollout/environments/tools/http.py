"""Tool `http`: the arguments of a call are posted to a URL as JSON, and the policy reads what is answered.

Nothing of the service goes along: no token, no cookie, nothing from its environment or from .netrc, and no redirect is followed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx

from rollout.environments.tools.function import Function, ToolError, schema_fault
from services.config.tools import HttpTool
from services.errors import InputError, RatchetError

SHOWN_CHARACTERS = 500
"""How much of an answer that refuses the call is shown."""


async def doubt(settings: HttpTool, place: str) -> str | None:
    """Why calls are likely to fail, or to be answered with what nobody wants; None: nothing speaks for it.

    Asked by HEAD, which changes nothing; a service that takes POST alone may refuse it.

    Waits for: the service behind the URL.
    Until: the tool's `seconds`.
    Ended by: its answer, or that time, which is a doubt.
    Metric: none; it is before a run starts.
    """
    said = f'{place}.url = "{settings.url}"'
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=settings.seconds) as client:
            answer = await client.head(settings.url)
    except httpx.HTTPError as fault:
        return f"{said} does not answer now: {str(fault) or type(fault).__name__}; the run needs it"
    if answer.has_redirect_location:
        return (
            f"{said} sends on to {answer.headers['location']}, and calls are not sent on, which is a fault of the environment; "
            "give that address"
        )
    if answer.is_success and "html" in answer.headers.get("content-type", ""):
        return f"{said} answers with a page for a browser (HTML), which the policy would read; give the address of a service"
    return None


class HttpCall:
    def __init__(self, settings: HttpTool, place: str) -> None:
        """place: of the settings, for errors."""
        self._settings = settings
        if fault := schema_fault(settings.parameters):
            raise InputError(f"{place}.parameters is not a JSON schema of arguments: {fault}")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Function]]:
        settings = self._settings
        async with httpx.AsyncClient(trust_env=False, timeout=settings.seconds) as client:
            call = partial(self._call, client)
            yield [Function(settings.name, settings.description, settings.parameters, call, settings.seconds)]

    async def _call(self, client: httpx.AsyncClient, arguments: dict[str, Any]) -> str:
        """What is answered. Raises ToolError for a refusal of the call, and others where the service is at fault.

        Waits for: the service behind the URL.
        Until: the tool's `seconds`.
        Ended by: its answer, max_bytes of it, or that time, which is a fault of the environment.
        Metric: ratchet_rollout_tool_seconds.
        """
        settings = self._settings
        async with client.stream("POST", settings.url, json=arguments) as response:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > settings.max_bytes:
                    break
            text = bytes(body[: settings.max_bytes]).decode("utf-8", "replace")
            if response.is_server_error or response.is_redirect:
                raise RatchetError(f"{settings.url} answered HTTP {response.status_code}: {text[:SHOWN_CHARACTERS]}")
            if response.is_client_error:
                raise ToolError(text[:SHOWN_CHARACTERS] or f"HTTP {response.status_code}")
        return text
