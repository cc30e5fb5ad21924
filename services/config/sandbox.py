"""[verifier.sandbox]: what runs the code that is graded, and the ceilings of what a request may ask for."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from services.config.base import Strict, relative_to_file

SANDBOX_VARIABLE = "RATCHET_SANDBOX"
"""Environment variable in which these settings reach the processes that grade, as JSON."""
START_S = 30.0
"""Seconds in which a sandbox has to start on a very busy machine; on an idle one it takes 0.02 s."""


def _link_kept(value: object, info: ValidationInfo) -> object:
    """Unlike LocalPath, a symbolic link is not followed: the python of a virtual environment is one, and the file that it
    points to is another interpreter."""
    return relative_to_file(value, info) if isinstance(value, str) else value


class _Sandbox(Strict):
    """Limits of every kind of sandbox."""

    python: Annotated[Path, BeforeValidator(_link_kept)] | None = None
    """Interpreter that runs the graded programs; the python of a virtual environment brings its packages along. Default:
    the interpreter that runs Ratchet if the sandbox can read it, otherwise the system's."""
    max_wall_s: float = Field(default=10.0, gt=0.0)
    """Largest `wall_s`, the seconds for one test, that a request may ask for."""
    max_total_s: float = Field(default=60.0, gt=0.0)
    """Seconds for all tests of a response together; a response that has not passed by then is incorrect."""
    max_memory_mb: int = Field(default=1024, ge=64)
    """Largest `memory_mb`, the MiB of one process, that a request may ask for."""
    max_output_bytes: int = Field(default=2**20, ge=1024)
    """Largest output of one test, in bytes: the result of a function, or what a program prints."""
    max_processes: int = Field(default=32, ge=4)
    """Processes and threads that one response may have at a time, those of the sandbox included."""
    max_files: int = Field(default=64, ge=16)
    """Files that one process may have open."""
    max_file_mb: int = Field(default=16, ge=1)
    """MiB that all files in the private /tmp may hold together."""


class Bubblewrap(_Sandbox):
    """Graded code runs in a bubblewrap container without network and with limits; docs/sandbox.md says what that stops."""

    type: Literal["bubblewrap"] = "bubblewrap"


class NoSandbox(_Sandbox):
    """Graded code runs as the service itself, may read its files, and reach its network and its processes. For code that you
    trust, on a machine where bubblewrap does not work."""

    type: Literal["none"] = "none"


SandboxConfig = Annotated[Bubblewrap | NoSandbox, Field(discriminator="type")]
