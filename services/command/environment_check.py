"""Whether the environment of a run can be used, asked before anything that takes minutes starts."""

import json
import subprocess
from collections.abc import Sequence

import msgspec

from services.command.rooms import CHECK_ENVIRONMENT, python_module
from services.config import RunConfig
from services.config.load import render
from services.datasets.dataset import Problem
from services.environments import location_of
from services.errors import InputError

IMPORTS_S = 120.0
"""Time for the import of transformers and of the package, on a machine that is very busy; 3 s on an idle one."""
TURNS = 6
"""How many times environment.turn_s the check may take besides: to begin, twice, to be answered, twice, and to be closed."""
SHOWN_LINES = 10
SHOWN_CHARACTERS = 300
"""What is shown of each line."""


class Answer(msgspec.Struct):
    """What the process of the check has found."""

    warnings: list[str] = []
    fault: str | None = None
    """What is wrong; None: nothing."""
    is_of_others: bool = False
    """Whether a program of others failed: what it wrote to standard error may say why."""


def check_environment_name(config: RunConfig) -> None:
    """Raises InputError for an environment that no installed package brings."""
    if config.environment is not None:
        location_of(config.environment.name)


def check_environment(config: RunConfig, problems: Sequence[Problem]) -> list[str]:
    """Make the environment, begin a conversation about one of the problems, and look at how the template puts it to the model.

    In a process of its own: it imports what others wrote. problems: one or two; the second is tried where the first does not
    work. Returns warnings; raises InputError, which names the setting.

    Waits for: the process that imports the environment.
    Until: 120 s (IMPORTS_S) and 6 times (TURNS) environment.turn_s.
    Ended by: its exit, or the deadline, which is an InputError.
    Metric: none; a command asks this before any service has started.
    """
    if config.environment is None:
        return []
    asked = [
        {
            "subject": {"prompt": one.prompt, "reference": one.reference, "options": one.options, "row": one.row},
            "grader": one.grader,
            "place": one.place or f"row {one.row}",
        }
        for one in problems
    ]
    deadline_s = IMPORTS_S + TURNS * config.environment.turn_s
    named = f'environment.name = "{config.environment.name}"'
    try:
        tried = subprocess.run(
            python_module(CHECK_ENVIRONMENT),
            input=json.dumps({"run": render(config), "problems": asked}),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as late:
        raise InputError(
            f"{named} took more than {deadline_s:.0f} s to import and to begin a conversation: it blocks. Await in it, do not "
            "block"
        ) from late
    lines = dict.fromkeys(tried.stderr.strip().splitlines())  # attempts are alike
    wrote = "\n  ".join(line[:SHOWN_CHARACTERS] for line in list(lines)[-SHOWN_LINES:])
    try:
        answer = msgspec.json.decode(tried.stdout, type=Answer)
    except msgspec.MsgspecError:
        how = f"exit code {tried.returncode}" if tried.returncode >= 0 else f"signal {-tried.returncode}"
        raise InputError(
            f"{named}: the process that tried it ended with {how} in the middle" + (f":\n  {wrote}" if wrote else "")
        ) from None
    if answer.fault is not None:
        more = f"\nIts standard error:\n  {wrote}" if answer.is_of_others and wrote else ""
        raise InputError(f"{answer.fault}{more}")
    return answer.warnings
