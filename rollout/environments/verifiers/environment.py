"""Environment `verifiers`: an environment of the package of that name plays a task with the policy, unchanged.

Row i of the dataset stands for task i of its taskset (rows.py writes such a dataset). The package runs in a Python of its own,
its harness asks the policy by OpenAI's API as any agent does, and the reward is the one that it gives: the sum over the seats
that it calls trainable. What fails there is a fault of the environment.
"""

import json
from collections.abc import Mapping
from typing import Any

from rollout.environments.agent.environment import Served
from rollout.environments.agent.program import Agent as Program
from rollout.environments.agent.program import checked_reward
from rollout.environments.executable import why_not
from rollout.environments.verifiers.process import process_of_this_loop


class Verifiers(Served):
    def __init__(
        self, *, python: str, environment: Mapping[str, Any], format: str = "hermes", variables: Mapping[str, str] = {}
    ) -> None:
        """python: the interpreter in which verifiers and the environment's package are installed. environment: its settings, as
        verifiers reads them, such as { taskset = { id = "..." } }. format: how the model's family writes calls. variables:
        added to the process's environment."""
        if fault := why_not(python):
            raise ValueError(f'python = "{python}": {fault}')
        taskset = environment.get("taskset")
        if not isinstance(taskset, Mapping) or not taskset.get("id"):
            raise ValueError(f'environment = {dict(environment)} names no taskset: {{ taskset = {{ id = "..." }} }}')
        super().__init__(_program_of(python, json.dumps(environment), variables), format)


def _program_of(python: str, environment: str, variables: Mapping[str, str]) -> Program:
    async def run(problem: Mapping[str, Any], base_url: str, key: str) -> float | None:
        process = process_of_this_loop(python, environment, variables)
        asked = {"row": problem["row"], "base_url": base_url, "api_key": key}
        return checked_reward((await process.ask(run=asked))["reward"])

    return run
