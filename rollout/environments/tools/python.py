"""Tool `python`: programs of the policy, run by the verifier in its sandbox.

A conversation's earlier programs run again before each new one, without their output: so names that were defined stay defined,
and the verifier keeps nothing between two calls. They are run with the same random seed for hashes and without a network; what
depends on the time or on random draws may come out otherwise.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from rollout.environments.tools.function import Function, ToolError
from services.config.tools import PythonTool
from services.errors import RatchetError

DESCRIPTION = (
    "Runs a Python program and shows what it prints, and the value of its last line. What earlier programs defined is still "
    "known. There is no network."
)
PARAMETERS = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "the program"}},
    "required": ["code"],
    "additionalProperties": False,
}
CONNECT_S = 5.0
Verifier = Callable[[], httpx.AsyncClient]
"""Makes a client whose base URL is the verifier's, and which shows it its token."""


class Python:
    def __init__(self, settings: PythonTool, verifier: Verifier) -> None:
        self._settings = settings
        self._verifier = verifier

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Function]]:
        async with self._verifier() as client:
            cells = _Cells(self._settings, client)
            yield [Function(self._settings.name, DESCRIPTION, PARAMETERS, cells.run, self._settings.seconds)]


class _Cells:
    """The programs of one conversation."""

    def __init__(self, settings: PythonTool, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._client = client
        self._earlier: list[str] = []

    async def run(self, arguments: dict[str, Any]) -> str:
        """What the program prints. Raises ToolError for a program that fails or breaks a limit.

        Waits for: the verifier.
        Until: the tool's `seconds`.
        Ended by: its answer, or that time, which is a fault of the environment.
        Metric: ratchet_rollout_tool_seconds.
        """
        settings, code = self._settings, arguments["code"]
        asked = {
            "code": code,
            "earlier": self._earlier,
            "wall_s": settings.wall_s,
            "memory_mb": settings.memory_mb,
        }
        answer = await self._client.post("/v1/run", json=asked)
        if answer.status_code != 200:
            raise RatchetError(
                f"the verifier at {self._client.base_url} answered {answer.status_code}: {answer.text[:300]}"
            )
        ran = answer.json()
        if ran["fault"]:  # it broke a limit: running it again would break it again
            raise ToolError(ran["fault"])
        self._earlier.append(code)  # also one that raised: what it defined before that stays
        output = ran["output"] + ran["errors"]
        if ran["exit_code"] != 0:
            raise ToolError(output.strip() or f"exit code {ran['exit_code']}")
        return output or "(nothing was printed)"
