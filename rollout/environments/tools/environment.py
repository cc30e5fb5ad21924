"""Environment `tools`: the conversation goes on while the policy calls tools, and its first message without a call is the answer,
which the run's grader judges.

Every call is answered, in the order in which they were written: with what the tool says, or with why it says nothing. Nothing
that the policy writes is a fault; a tool that is away, or late, is one.
"""

import asyncio
import math
from collections import defaultdict
from contextlib import AsyncExitStack

from rollout.environments.environment import Message, Start, Subject, Turn
from rollout.environments.tools.calls import EXAMPLES, FORMATS, Call, Unreadable, read_calls
from rollout.environments.tools.function import Function, ToolError, argument_fault
from rollout.environments.tools.toolbox import Toolbox
from services.clock import now_s
from services.errors import RatchetError

UNREADABLE = "unreadable"
"""Name under which calls that cannot be read are counted."""
UNKNOWN_NAME_CHARACTERS = 60


class Tools:
    def __init__(
        self,
        *,
        tools: Toolbox,
        format: str = "hermes",
        max_calls: int = 16,
        max_characters: int = 4000,
        called: float = 0.0,
        failed: float = 0.0,
    ) -> None:
        """format: how the model's family writes a call. max_calls: how many are answered in one conversation. max_characters: of
        one answer; of a longer one the beginning and the end are shown. called, failed: rewards of a message whose calls all
        succeed, and of one with a call that fails, for learner.advantage.turns."""
        if format not in FORMATS:
            raise ValueError(f'format = "{format}" is not one of {", ".join(sorted(FORMATS))}')
        if max_calls < 1 or max_characters < 1:
            raise ValueError(f"max_calls = {max_calls} and max_characters = {max_characters} have to be at least 1")
        for name, reward in (("called", called), ("failed", failed)):
            if not math.isfinite(reward):
                raise ValueError(f"{name} = {reward} is not a finite number")
        self._toolbox = tools
        self._format = format
        self._calls_left = max_calls
        self._max_characters = max_characters
        self._called = called
        self._failed = failed
        self.gives_rewards = called != 0.0 or failed != 0.0
        self._functions: dict[str, Function] = {}
        self._opened = AsyncExitStack()

    async def reset(self, subject: Subject) -> Start:
        functions = await self._opened.enter_async_context(self._toolbox.opened())
        self._functions = {function.name: function for function in functions}
        return Start(subject.messages, [function.told for function in functions])

    async def step(self, message: Message) -> Turn:
        calls = read_calls(message["content"], self._format).calls
        if not calls:
            return Turn(done=True)
        until_s = now_s() + self._toolbox.answer_s
        answers, errors, seconds = [], [], defaultdict(list)
        for call in calls:
            name = call.name if isinstance(call, Call) else UNREADABLE
            begun_s = now_s()
            try:
                said = await self._answer(call, until_s)
            except ToolError as fault:
                said = f"Error: {fault}"
                errors.append(name)
            if name in self._functions:
                seconds[name].append(now_s() - begun_s)
            answers.append({"role": "tool", "name": name[:UNKNOWN_NAME_CHARACTERS], "content": self._shown(said)})
        reward = (self._failed if errors else self._called) if self.gives_rewards else None
        return Turn(answers, reward=reward, info={"tool_errors": errors, "tool_seconds": dict(seconds)})

    async def close(self) -> None:
        await self._opened.aclose()

    async def _answer(self, call: Call | Unreadable, until_s: float) -> str:
        """What the tool says. Raises ToolError for what the policy did wrong, RatchetError for a tool that is late.

        Waits for: the tool.
        Until: the tool's `seconds`.
        Ended by: its answer, or that time, which is a fault of the environment.
        Metric: ratchet_rollout_tool_seconds.
        """
        self._calls_left -= 1
        if self._calls_left < 0:
            raise ToolError("no calls are left; answer now")
        if now_s() > until_s:
            raise ToolError("the calls before it took too long; make fewer in one message")
        if isinstance(call, Unreadable):
            raise ToolError(f"this call cannot be read: {call.why}. A call is written {EXAMPLES[self._format]}")
        function = self._functions.get(call.name)
        if function is None:
            known = ", ".join(self._functions)
            raise ToolError(f"there is no tool {call.name[:UNKNOWN_NAME_CHARACTERS]!r}; there are {known}")
        arguments = call.typed(function.parameters)
        if fault := argument_fault(function, arguments):
            raise ToolError(f"the arguments are wrong: {fault}")
        try:
            async with asyncio.timeout(function.seconds):
                return await function.call(arguments)
        except TimeoutError as late:
            raise RatchetError(f"the tool {function.name} took more than its {function.seconds:g} seconds") from late

    def _shown(self, said: str) -> str:
        most = self._max_characters
        if len(said) <= most:
            return said
        head, tail = most - most // 2, most // 2
        return f"{said[:head]}\n... ({len(said) - most} characters left out) ...\n{said[len(said) - tail :]}"
