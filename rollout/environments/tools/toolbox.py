"""The tools of a run's settings, made once in a replica and opened for each conversation."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from rollout.environments.tools.calculator import Calculator
from rollout.environments.tools.function import Function, Provider, schema_fault
from rollout.environments.tools.http import HttpCall
from rollout.environments.tools.mcp import Mcp
from rollout.environments.tools.python import Python
from rollout.environments.tools.search import Search
from services.config.environment import EnvironmentConfig
from services.config.tools import CalculatorTool, HttpTool, McpTool, PythonTool, SearchTool, ToolConfig
from services.errors import InputError

VerifierClient = Callable[[str | None], httpx.AsyncClient]
"""Makes a client of the verifier. Its argument: a URL of the user's; None: the run's own verifier."""


class Toolbox:
    """What `[[environment.tools]]` says, for an environment that takes `tools`."""

    def __init__(self, settings: EnvironmentConfig, verifier: VerifierClient) -> None:
        """Raises InputError, naming the setting."""
        self._providers = [
            _provider(tool, f"environment.tools.{number}", verifier) for number, tool in enumerate(settings.tools)
        ]
        self.answer_s = settings.turn_s / 2
        """How long the calls of one message may take together; a call may begin up to then."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Function]]:
        """All functions, for one conversation. Raises InputError for one that the policy cannot be told of."""
        async with AsyncExitStack() as stack:
            functions: list[Function] = []
            for number, provider in enumerate(self._providers):
                for function in await stack.enter_async_context(provider.opened()):
                    if fault := schema_fault(function.parameters):
                        raise InputError(
                            f"environment.tools.{number}: the parameters of {function.name} are not a JSON schema of "
                            f"arguments: {fault}"
                        )
                    functions.append(function)
            twice = [name for name, count in Counter(function.name for function in functions).items() if count > 1]
            if twice:
                raise InputError(
                    f'environment.tools: two tools are named "{twice[0]}"; give one another name, or leave it out (only)'
                )
            yield functions


def _provider(tool: ToolConfig, place: str, verifier: VerifierClient) -> Provider:
    match tool:
        case CalculatorTool():
            return Calculator(tool)
        case PythonTool():
            return Python(tool, lambda: verifier(tool.url))
        case SearchTool():
            return Search(tool, place)
        case HttpTool():
            return HttpCall(tool, place)
        case McpTool():
            return Mcp(tool, place)
