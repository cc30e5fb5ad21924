"""Asks the graders whether they can judge by given reference answers.

They do so in a process of their own: the command line may not import them, and they import much.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.command.rooms import CHECK_REFERENCES, python_module
from services.config.sandbox import SANDBOX_VARIABLE
from services.errors import InputError
from services.numbers import count

DEADLINE_S = 120.0
EACH_S = 0.05
"""What each question adds to the deadline; most take a millisecond."""


@dataclass(frozen=True, slots=True)
class Question:
    """One reference answer, and the grader that has to judge by it."""

    place: str
    """Where it comes from, for the message: a dataset and a row."""
    grader: str
    reference: Any
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a grader cannot judge by a reference answer."""

    place: str
    fault: str


def faults(questions: Sequence[Question], *, sandbox: str | None = None) -> list[Fault]:
    """The questions that a grader cannot judge. Raises InputError if that cannot be found out.

    sandbox: the settings of verifier.sandbox as JSON; None: the defaults.

    Waits for: the graders, in a process of their own.
    Until: 120 s (DEADLINE_S), and 0.05 s (EACH_S) more for each question.
    Ended by: the last answer, or the deadline, which kills the process.
    Metric: none; it is before a run starts.
    """
    deadline_s = DEADLINE_S + EACH_S * len(questions) if len(questions) > 1 else DEADLINE_S
    try:
        checked = subprocess.run(
            python_module(CHECK_REFERENCES),
            input="".join(json.dumps(asdict(question)) + "\n" for question in questions),
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline_s,
            env=os.environ | ({SANDBOX_VARIABLE: sandbox} if sandbox is not None else {}),
        )
    except subprocess.TimeoutExpired as late:
        raise InputError(
            f"checking {count(len(questions))} references took more than {count(deadline_s)} s: one of them keeps its grader "
            "busy. `ratchet verify` shows which"
        ) from late
    if checked.returncode != 0:
        raise InputError(f"the references cannot be checked: {checked.stderr.strip()[-500:]}")
    return [Fault(**json.loads(line)) for line in checked.stdout.splitlines()]
