"""One session with a server of OpenEnv (https://github.com/huggingface/OpenEnv): JSON messages over the WebSocket at /ws.

We send {"type": "reset", "data": {...}}, {"type": "step", "data": action} and, for the tools of an environment that speaks MCP,
{"type": "mcp", "data": a JSON-RPC request}. The server answers {"type": "observation", "data": {"observation", "reward",
"done"}}, {"type": "mcp", ...} or {"type": "error", "data": {"message", "code"}}. GET /schema has the schema of actions. Written
here rather than taken from the package: it needs gradio, fastmcp and other versions of what a replica has.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from services.errors import RatchetError

MOST_BYTES = 32 * 2**20
"""Size of the largest observation."""
CONNECT_S = 10.0
POLICYS = ("VALIDATION_ERROR",)
"""Codes of errors that are the policy's: its action is not one."""


class WrongAction(Exception):
    """The server refuses the action; the text says why."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What an action came to."""

    observation: Mapping[str, Any]
    reward: float | None
    done: bool


def http_url(url: str) -> str:
    """The server's address for plain requests. Raises ValueError for what is not a URL."""
    parts = urlsplit(url)
    schemes = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f'url = "{url}" is not one; give http://HOST:PORT or ws://HOST:PORT')
    return f"{schemes[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/ws')}"


async def action_schema(url: str) -> Mapping[str, Any]:
    """The schema of the server's actions; empty where it tells none. Raises RatchetError where it cannot be asked.

    Waits for: the server.
    Until: 10 s (CONNECT_S).
    Ended by: its answer, or that time, which is a fault of the environment.
    Metric: ratchet_rollout_environment_seconds.
    """
    try:
        async with httpx.AsyncClient(timeout=CONNECT_S, trust_env=False) as client:
            answer = await client.get(f"{http_url(url)}/schema")
        told = answer.json() if answer.status_code == 200 else {}
    except httpx.HTTPError as fault:
        raise _away(url, fault) from fault
    except ValueError as fault:
        raise RatchetError(
            f'environment.options.url = "{url}" answers /schema with what is not JSON: what listens there is not a server of '
            "OpenEnv; correct the address"
        ) from fault
    schema = told.get("action") if isinstance(told, dict) else None
    return schema if isinstance(schema, dict) else {}


def _away(url: str, fault: Exception) -> RatchetError:
    return RatchetError(
        f'environment.options.url = "{url}": no server of OpenEnv can be reached there: {fault or type(fault).__name__}; start '
        "it, or correct the address"
    )


class Session:
    """A session that was opened."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def opened(cls, url: str) -> "Session":
        """Raises RatchetError where the server is away.

        Waits for: the server.
        Until: 10 s (CONNECT_S).
        Ended by: the connection, or that time, which is a fault of the environment.
        Metric: ratchet_rollout_environment_seconds.
        """
        address = f"{http_url(url).replace('http', 'ws', 1)}/ws"
        try:
            return cls(await connect(address, max_size=MOST_BYTES, open_timeout=CONNECT_S, proxy=None))
        except (OSError, WebSocketException) as fault:
            raise _away(url, fault) from fault

    async def close(self) -> None:
        """Waits for: the server.

        Until: environment.turn_s.
        Ended by: its farewell.
        Metric: none; nobody waits for it.
        """
        await self._connection.close()

    async def reset(self, given: Mapping[str, Any]) -> Observed:
        return _observed(await self._ask("reset", given))

    async def step(self, action: Mapping[str, Any]) -> Observed:
        """Raises WrongAction for what is no action of this environment."""
        return _observed(await self._ask("step", action))

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools of an environment that speaks MCP, each with `name`, `description` and `inputSchema`; none: it does not."""
        request = {"jsonrpc": "2.0", "method": "tools/list", "params": {}, "id": 1}
        try:
            answer = await self._ask("mcp", request)
        except RatchetError:  # a server of before it knew the message
            return ()
        result = answer.get("result")
        listed = result.get("tools") if isinstance(result, dict) else None
        return [one for one in listed or () if isinstance(one, dict) and isinstance(one.get("name"), str)]

    async def _ask(self, kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises WrongAction, and RatchetError for what is the server's fault.

        Waits for: the server.
        Until: environment.turn_s, which bounds the step.
        Ended by: its answer, or the end of the connection.
        Metric: ratchet_rollout_environment_seconds.
        """
        try:
            with suppress(ConnectionClosed):  # then what it said before that is read
                await self._connection.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(await self._connection.recv())
        except (OSError, WebSocketException) as fault:
            raise RatchetError(f"the server ended the session: {fault}") from fault
        said = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(said, dict):
            raise RatchetError(f"the server answered {str(answer)[:200]}, which is not a message of OpenEnv")
        if answer.get("type") == "error":
            words = f"{said.get('message', 'error')}{_details(said)}"
            if kind == "step" and said.get("code") in POLICYS:
                raise WrongAction(words)
            hint = ": raise max_concurrent_envs of the server, or lower environment.open_conversations"
            raise RatchetError(
                f"the server failed ({said.get('code')}): {words}"
                + (hint if said.get("code") == "CAPACITY_REACHED" else "")
            )
        return said


def _details(said: Mapping[str, Any]) -> str:
    """What pydantic says of an action, in short."""
    errors = said.get("errors")
    if not isinstance(errors, list):
        return ""
    places = [
        f"{'.'.join(map(str, one.get('loc', ())))}: {one.get('msg')}" for one in errors[:5] if isinstance(one, dict)
    ]
    return f" ({'; '.join(places)})"


def _observed(data: Mapping[str, Any]) -> Observed:
    observation, reward, done = data.get("observation"), data.get("reward"), data.get("done", False)
    if not isinstance(observation, dict) or not isinstance(done, bool):
        raise RatchetError(f"the server answered {str(data)[:200]}, which is not an observation of OpenEnv")
    if reward is not None and not (isinstance(reward, int | float) and math.isfinite(reward)):
        raise RatchetError(f"the server gave the reward {reward!r}, which is not a finite number")
    return Observed(observation, None if reward is None else float(reward), done)
