"""[verifier.sandbox]: what runs the code that is graded, and the ceilings of what a request may ask for."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from services.config.base import Strict

SANDBOX_VARIABLE = "RATCHET_SANDBOX"
"""Environment variable in which these settings reach the processes that grade, as JSON."""
START_S = 30.0
"""Within which a sandbox has to be there, on a machine that is very busy; takes 0.02 s on an idle one."""


def _beside_the_file(value: object, info: ValidationInfo) -> object:
    """Unlike LocalPath it follows no link: the python of a virtual environment is one, and means another thing there."""
    if isinstance(value, str):
        return Path((info.context or {}).get("folder", Path.cwd()), Path(value).expanduser())
    return value


class _Sandbox(Strict):
    python: Annotated[Path, BeforeValidator(_beside_the_file)] | None = None
    """Interpreter that runs the graded programs; that of a virtual environment brings its packages along. Without it:
    the one that runs Ratchet, or else the system's, whichever the sandbox can read."""
    max_wall_s: float = Field(default=10.0, gt=0.0)
    """Highest `wall_s`, the time for one test, that a request may ask for."""
    max_total_s: float = Field(default=60.0, gt=0.0)
    """For all tests of a response together; it is incorrect when it has not passed by then."""
    max_memory_mb: int = Field(default=1024, ge=64)
    """Highest `memory_mb` that a request may ask for."""
    max_output_bytes: int = Field(default=2**20, ge=1024)
    """Of one test: the result of a function, or what a program prints."""
    max_processes: int = Field(default=32, ge=4)
    """Processes and threads of one response at a time, those of the sandbox included."""
    max_files: int = Field(default=64, ge=16)
    """Open files of one process."""
    max_file_mb: int = Field(default=16, ge=1)
    """Everything in the private /tmp together."""


class Bubblewrap(_Sandbox):
    type: Literal["bubblewrap"] = "bubblewrap"


class NoSandbox(_Sandbox):
    """Graded code runs as the service itself, may read its files, and reach its network and its processes."""

    type: Literal["none"] = "none"


SandboxConfig = Annotated[Bubblewrap | NoSandbox, Field(discriminator="type")]
