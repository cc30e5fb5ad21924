"""Whether the environment of a run can be used, asked before anything that takes minutes starts."""

import json
import subprocess

from services.command.rooms import CHECK_ENVIRONMENT, python_module
from services.config import RunConfig
from services.config.load import render
from services.datasets.dataset import Problem
from services.environments import location_of
from services.errors import InputError

IMPORTS_S = 120.0
"""Time for the import of transformers and of the package, on a machine that is very busy; 3 s on an idle one."""


def check_environment_name(config: RunConfig) -> None:
    """Raises InputError for an environment that no installed package brings."""
    if config.environment is not None:
        location_of(config.environment.name)


def check_environment(config: RunConfig, first: Problem) -> list[str]:
    """Make the environment, begin a conversation about the first problem, and look at how the template puts it to the model.

    In a process of its own: it imports what others wrote. Returns warnings; raises InputError, which names the setting.

    Waits for: the process that imports the environment.
    Until: IMPORTS_S and twice environment.turn_s.
    Ended by: its exit, or the deadline, which is an InputError.
    Metric: none; a command asks this before any service has started.
    """
    if config.environment is None:
        return []
    problem = {"prompt": first.prompt, "reference": first.reference, "options": first.options, "row": first.row}
    deadline_s = IMPORTS_S + 2 * config.environment.turn_s
    try:
        tried = subprocess.run(
            python_module(CHECK_ENVIRONMENT),
            input=json.dumps({"run": render(config), "problem": problem}),
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as late:
        raise InputError(
            f'environment.name = "{config.environment.name}" took more than {deadline_s:.0f} s to import and to begin a '
            "conversation: it blocks. Await in it, do not block"
        ) from late
    if tried.returncode != 0:
        raise InputError(tried.stderr.strip()[-2000:])
    return tried.stdout.splitlines()
