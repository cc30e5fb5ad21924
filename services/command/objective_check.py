"""Whether an objective that a package brings works, asked before anything that takes minutes starts."""

import subprocess

from services.command.rooms import CHECK_OBJECTIVE, python_module
from services.config import RunConfig
from services.config.objectives.registry import OURS
from services.errors import InputError

CHECK_DEADLINE_S = 120.0
"""Time for the import of torch and of the package, on a machine that is very busy; 3 s on an idle one."""


def check_objective(config: RunConfig) -> None:
    """Try the functions of a package's objective on made-up tokens; Ratchet's own were tried by its tests.

    In a process of its own: they import torch, which nothing here does. Raises InputError, which names the module.

    Waits for: the process that imports the package and tries its objective.
    Until: CHECK_DEADLINE_S.
    Ended by: its exit, or the deadline, which is an InputError.
    Metric: none; a command asks this before any service has started.
    """
    objective = config.learner.objective
    if objective.type in OURS:
        return
    try:
        tried = subprocess.run(
            python_module(CHECK_OBJECTIVE),
            input=objective.model_dump_json(),
            capture_output=True,
            text=True,
            check=False,
            timeout=CHECK_DEADLINE_S,
        )
    except subprocess.TimeoutExpired as late:
        raise InputError(
            f'the objective "{objective.type}" ({objective.implementation}) took more than {CHECK_DEADLINE_S:.0f} s to import '
            "and to compute five tokens"
        ) from late
    if tried.returncode != 0:
        raise InputError(tried.stderr.strip()[-2000:])
