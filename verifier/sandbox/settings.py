"""The settings of the sandbox in a grader process, which gets them from the service in an environment variable."""

import functools
import json
import os

from pydantic import TypeAdapter

from services.config.sandbox import SANDBOX_VARIABLE, Bubblewrap, NoSandbox, SandboxConfig
from verifier.grader import ScoringFault

_adapter: TypeAdapter[Bubblewrap | NoSandbox] = TypeAdapter(SandboxConfig)


def settings_from_environment() -> Bubblewrap | NoSandbox:
    """The settings; the defaults if the variable is not set. Raises ScoringFault when it cannot be read."""
    return _read(os.environ.get(SANDBOX_VARIABLE, ""))


def for_environment(settings: Bubblewrap | NoSandbox) -> dict[str, str]:
    """The variable that settings_from_environment reads."""
    return {SANDBOX_VARIABLE: settings.model_dump_json()}


@functools.lru_cache(maxsize=8)
def _read(text: str) -> Bubblewrap | NoSandbox:
    if not text:
        return Bubblewrap()
    try:
        return _adapter.validate_python(json.loads(text))
    except ValueError as fault:
        raise ScoringFault(
            f"the environment variable {SANDBOX_VARIABLE} holds no settings of a sandbox: {fault}"
        ) from fault
