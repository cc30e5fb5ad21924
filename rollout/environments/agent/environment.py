"""Environment `agent`: a program written against OpenAI's API talks with the policy, and is trained unchanged.

Each of its requests is a turn. One whose messages go on from those before, with what the policy said and something behind it,
stays in one sequence; any other begins the sequence again with its own history. The conversation is over when the program ends;
the policy's last message is then its answer, and the program may give a reward of its own.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rollout.environments.agent.program import Agent as Program
from rollout.environments.agent.program import function_agent, program_agent, told
from rollout.environments.agent.request import Said, as_said, goes_on, heard
from rollout.environments.agent.server import AgentServer, Asked, Line, server_of_this_loop
from rollout.environments.environment import Message, Start, Subject, Turn
from rollout.environments.executable import why_not
from rollout.environments.tools.calls import FORMATS
from rollout.environments.tools.environment import UNREADABLE
from services.errors import RatchetError


class Served:
    """A conversation with a program that asks the policy by the API: what it asks becomes turns."""

    def __init__(self, program: Program, format: str, *, give_reference: bool = False) -> None:
        """format: how the model's family writes calls. give_reference: whether the program is told the reference answer."""
        if format not in FORMATS:
            raise ValueError(f'format = "{format}" is not one of {", ".join(sorted(FORMATS))}')
        self._program = program
        self._format = format
        self._give_reference = give_reference
        self._server: AgentServer | None = None
        self._line: Line | None = None
        self._running: asyncio.Task[float | None] | None = None
        self._asked: Asked | None = None
        self._said: list[Said] = []

    async def reset(self, subject: Subject) -> Start:
        self._server = server_of_this_loop()
        self._line = self._server.open()
        about = told(subject, give_reference=self._give_reference)
        self._running = asyncio.create_task(self._program(about, self._server.base_url, self._line.key))
        self._asked = await self._next()
        if self._asked is None:
            raise RatchetError("the agent ended without a word to the policy: it has to ask at the address it is given")
        return Start(self._asked.request.messages, self._asked.request.tools)

    async def step(self, message: Message) -> Turn:
        assert self._asked is not None
        assert self._running is not None
        before = self._asked.request
        said = heard(message["content"], self._format, message.get("tokens", {}), with_tools=bool(before.tools))
        self._said.append(said)
        self._asked.hear(said)
        info = {"tool_errors": [UNREADABLE] * said.unreadable}
        self._asked = await self._next()
        if self._asked is None:
            return Turn(done=True, reward=self._running.result(), info=info)
        request = self._asked.request
        more = goes_on(request, before, said)
        if more is not None:
            return Turn(more, info=info)
        return Turn(history=Start(as_said(request.messages, self._said), request.tools), info=info)

    async def close(self) -> None:
        """Waits for: the end of the program.

        Until: environment.turn_s.
        Ended by: its end, which is a kill.
        Metric: none; nobody waits for it.
        """
        if self._server is not None and self._line is not None:
            self._server.close(self._line)
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._running

    async def _next(self) -> Asked | None:
        """What the agent asks next; None when it has ended. Raises what it raised.

        Waits for: the agent.
        Until: environment.turn_s, which bounds the step.
        Ended by: a request, or the agent's end.
        Metric: ratchet_rollout_environment_seconds.
        """
        assert self._line is not None
        assert self._running is not None
        asking = asyncio.create_task(self._line.asked.get())
        either: list[asyncio.Future[object]] = [asking, self._running]  # type: ignore[list-item]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        finally:
            asking.cancel()
        self._running.result()
        return None


class Agent(Served):
    """A command, or a function."""

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        function: str | None = None,
        format: str = "hermes",
        give_reference: bool = False,
        variables: Mapping[str, str] = {},
    ) -> None:
        """command: the program and its arguments. function: module:name, in place of a program. format: how the model's family
        writes calls. give_reference: whether it is told the reference answer. variables: added to the program's environment."""
        if (command is None) == (function is None):
            raise ValueError('an agent needs either command = ["...", "..."] or function = "module:name"')
        super().__init__(_program_of(command, function, variables), format, give_reference=give_reference)


def _program_of(command: Sequence[str] | None, function: str | None, variables: Mapping[str, str]) -> Program:
    if function is not None:
        return function_agent(function)
    assert command is not None
    if not command:
        raise ValueError('command is empty; give a program and its arguments, as in ["python", "agent.py"]')
    if fault := why_not(command[0]):
        raise ValueError(f"command = {list(command)}: {fault}")
    return program_agent(command, variables)
