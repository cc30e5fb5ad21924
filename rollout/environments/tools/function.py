"""What a tool is: functions that the policy may call, opened for one conversation.

What the policy did wrong is a ToolError, whose text it reads. Anything else that a function raises, and lateness, is a fault of
the environment: the conversation is begun again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]

from rollout.environments.environment import Tool


class ToolError(Exception):
    """The call cannot be answered; the text says why, to the policy."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function that the policy may call."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments."""
    call: Callable[[dict[str, Any]], Awaitable[str]]
    """Answers a call whose arguments meet the schema. Raises ToolError."""
    seconds: float
    """How long one call may take."""

    @property
    def told(self) -> Tool:
        """The function as templates tell the policy of it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


class Provider(Protocol):
    """One section of [[environment.tools]]; made once in a replica. Making one raises InputError for what the user got wrong."""

    def opened(self) -> AbstractAsyncContextManager[Sequence[Function]]:
        """Its functions for one conversation, until the context ends. The two ends may be in two tasks."""


def schema_fault(parameters: object) -> str:
    """Why this is not a JSON schema of arguments; empty: it is one."""
    if not isinstance(parameters, Mapping):
        return f"{parameters!r} is not an object"
    try:
        Draft202012Validator.check_schema(dict(parameters))
    except SchemaError as fault:
        return f"{fault.message} (at {fault.json_path})"
    if parameters.get("type") != "object":
        return f'its type is {parameters.get("type")!r}; write {{ type = "object", properties = {{ ... }} }}'
    return ""


def argument_fault(function: Function, arguments: Mapping[str, Any]) -> str:
    """Why these arguments do not meet the function's schema; empty: they do."""
    fault = next(iter(Draft202012Validator(dict(function.parameters)).iter_errors(dict(arguments))), None)
    return "" if fault is None else f"{fault.message} (at {fault.json_path})"
