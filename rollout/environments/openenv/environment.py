"""Environment `openenv`: the policy acts in an environment that a server of OpenEnv holds.

What an action is depends on the server. With `action`, the whole message of the policy is that field of it: a guess, a move, a
program. Without, the policy calls tools: those of an environment that speaks MCP, or else one tool, `act`, whose arguments are
the action, by the schema that the server tells. There a message that calls nothing ends the conversation, with what it has earned
by then. Rewards are the server's, and so is the end.
"""

import importlib.util
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rollout.environments.environment import Message, Start, Subject, Tool, Turn
from rollout.environments.tools.calls import EXAMPLES, FORMATS, Call, read_calls
from rollout.environments.tools.environment import UNREADABLE
from services.errors import InputError

if TYPE_CHECKING:
    from rollout.environments.openenv.session import Observed, Session

ACT = "act"
OURS = ("done", "reward", "metadata")
"""Fields of every observation that are not for the policy."""


class OpenEnv:
    def __init__(
        self,
        *,
        url: str,
        action: str | None = None,
        observation: str | None = None,
        format: str = "hermes",
        reset: Mapping[str, Any] = {},
    ) -> None:
        """url: of the server. action: the field of an action that a message of the policy becomes. observation: the field of an
        observation that the policy reads; without it, all of them as JSON. format: how the model's family writes calls. reset:
        what the server's reset is given, besides the seed and the row's options."""
        if importlib.util.find_spec("websockets") is None:
            raise InputError('environment.name = "openenv" needs a package: pip install "ratchet[openenv]"')
        from rollout.environments.openenv.session import http_url

        if format not in FORMATS:
            raise ValueError(f'format = "{format}" is not one of {", ".join(sorted(FORMATS))}')
        http_url(url)
        self._url = url
        self._action = action
        self._observation = observation
        self._format = format
        self._given = dict(reset)
        self._session: Session | None = None
        self._has_tools = False
        """Whether a call is one of a tool by its name, and not the action itself."""
        self._rewarded = False

    async def reset(self, subject: Subject) -> Start:
        from rollout.environments.openenv.session import Session, action_schema

        schema = await action_schema(self._url)
        self._look_at(schema)
        self._session = await Session.opened(self._url)
        observed = await self._session.reset({"seed": subject.seed, **self._given, **subject.options})
        shown = self._shown(observed)
        messages = list(subject.messages)
        if messages[-1]["role"] == "user":  # many templates take no two of them in a row
            both = "\n\n".join(part for part in (messages[-1]["content"], shown) if part)
            messages[-1] = {**messages[-1], "content": both}
        else:
            messages.append({"role": "user", "content": shown})
        return Start(messages, () if self._action is not None else await self._tools(schema))

    async def step(self, message: Message) -> Turn:
        if self._action is not None:
            return await self._acted([{self._action: message["content"]}], "user", [])
        calls = read_calls(message["content"], self._format).calls
        if not calls:
            return Turn(done=True, reward=None if self._rewarded else 0.0)
        actions = [self._action_of(call) if isinstance(call, Call) else None for call in calls]
        names = [call.name if isinstance(call, Call) else UNREADABLE for call in calls]
        return await self._acted(actions, "tool", names)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _acted(self, actions: list[dict[str, Any] | None], role: str, names: list[str]) -> Turn:
        """What these actions come to, one after the other. None: a call that cannot be read."""
        from rollout.environments.openenv.session import WrongAction

        assert self._session is not None
        messages: list[Message] = []
        errors: list[str] = []
        rewards: list[float] = []
        done = False
        for at, action in enumerate(actions):
            name = names[at] if names else self._action or ACT
            try:
                if action is None:
                    raise WrongAction(f"this call cannot be read; write {EXAMPLES[self._format]}")
                observed = await self._session.step(action)
            except WrongAction as fault:
                said = f"Error: {fault}"
                errors.append(name)
            else:
                said = self._shown(observed)
                done = observed.done
                rewards += [observed.reward] if observed.reward is not None else []
            messages.append({"role": role, "content": said} | ({"name": name[:60]} if names else {}))
            if done:
                break
        self._rewarded |= bool(rewards)
        reward = sum(rewards) if rewards else None
        return Turn(messages, done=done, reward=reward, info={"tool_errors": errors})

    def _action_of(self, call: Call) -> dict[str, Any]:
        if self._has_tools:
            return {"type": "call_tool", "tool_name": call.name, "arguments": call.arguments}
        return call.arguments

    def _look_at(self, schema: Mapping[str, Any]) -> None:
        fields = schema.get("properties")
        if self._action is not None and isinstance(fields, dict) and self._action not in fields:
            known = ", ".join(name for name in fields if name not in OURS)
            raise InputError(
                f'environment.options.action = "{self._action}": an action of the server at {self._url} has no such field; it '
                f"has {known or 'none'}"
            )

    async def _tools(self, schema: Mapping[str, Any]) -> list[Tool]:
        assert self._session is not None
        listed = await self._session.tools()
        self._has_tools = bool(listed)
        if listed:
            return [
                _told(one["name"], str(one.get("description", "")), one.get("inputSchema") or one.get("input_schema"))
                for one in listed
            ]
        fields = {name: one for name, one in dict(schema.get("properties") or {}).items() if name not in OURS}
        if not fields:
            raise InputError(
                f"environment.options: the server at {self._url} tells no fields of an action and no tools; name the field that "
                "a message becomes: action"
            )
        return [_told(ACT, str(schema.get("description", "Acts.")), {**schema, "properties": fields})]

    def _shown(self, observed: "Observed") -> str:
        if self._observation is not None:
            if self._observation not in observed.observation:
                known = ", ".join(name for name in observed.observation if name not in OURS)
                raise InputError(
                    f'environment.options.observation = "{self._observation}": an observation of the server at {self._url} has '
                    f"no such field; it has {known or 'none'}"
                )
            said = observed.observation[self._observation]
            return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        shown = {name: value for name, value in observed.observation.items() if name not in OURS}
        return json.dumps(shown, ensure_ascii=False)


def _told(name: str, description: str, parameters: Any) -> Tool:
    empty = {"type": "object", "properties": {}}
    function = {"name": name, "description": description, "parameters": parameters or empty}
    return {"type": "function", "function": function}
