"""Two environments of OpenEnv, written against that package alone, and its own server for one of them: `server.py KIND PORT`."""

import sys
from typing import Any

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State


class Guess(Action):  # type: ignore[misc]
    number: int


class Hint(Observation):  # type: ignore[misc]
    hint: str


class Guessing(Environment):  # type: ignore[misc]
    """Find the number that reset was given."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def reset(self, seed: int | None = None, episode_id: str | None = None, number: int = 7, **_: Any) -> Hint:
        if number < 0:
            raise RuntimeError("there is no such game")
        self._number = number
        return Hint(hint=f"guess a number, seed {seed}")

    def step(self, action: Guess, timeout_s: float | None = None, **_: Any) -> Hint:
        right = action.number == self._number
        hint = "right" if right else "higher" if action.number < self._number else "lower"
        return Hint(hint=hint, done=right, reward=1.0 if right else -0.1)

    @property
    def state(self) -> State:
        return State()


class Word(Action):  # type: ignore[misc]
    text: str


class Repeating(Guessing):
    """Takes words, and is over with `bye`."""

    def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> Hint:
        return Hint(hint=action.text.upper(), done=action.text == "bye", reward=0.5)


class Tools(MCPEnvironment):  # type: ignore[misc]
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        server = FastMCP("tools")

        @server.tool  # type: ignore[untyped-decorator]
        def add(a: int, b: int) -> int:
            """Adds."""
            return a + b

        super().__init__(server)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Observation:
        return Observation(metadata={"about": "adding"})

    def _step_impl(self, action: Any, timeout_s: float | None = None, **_: Any) -> Observation:
        raise RuntimeError("only tools are called here")

    @property
    def state(self) -> State:
        return State()


KINDS = {
    "guess": (Guessing, Guess, Hint),
    "words": (Repeating, Word, Hint),
    "tools": (Tools, CallToolAction, CallToolObservation),
}

if __name__ == "__main__":
    app = create_fastapi_app(*KINDS[sys.argv[1]], max_concurrent_envs=4)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
