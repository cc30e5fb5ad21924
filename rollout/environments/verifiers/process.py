"""The process that holds an environment of `verifiers`: started with the first conversation, and ended with their loop."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from rollout.environments.agent.program import end_of, variables_for
from services.errors import InputError, RatchetError

BRIDGE = Path(__file__).with_name("bridge.py")
LONGEST_LINE = 64 * 2**20
NOT_INSTALLED = "No module named 'verifiers'"
SHOWN_CHARACTERS = 500
"""How much of what it wrote to standard error an error shows, the end of it."""


class BridgeProcess:
    """One process, for one loop."""

    def __init__(self, python: str, environment: str, variables: Mapping[str, str]) -> None:
        """python: the interpreter in which the package is installed. environment: its settings as JSON. variables: added to the
        process's environment. Begins at once."""
        self._command = [python, "-P", str(BRIDGE), environment]  # -P: its neighbors here are not modules for it
        self._variables = variables_for(variables)
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ready: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        self._life = asyncio.get_running_loop().create_task(self._live())

    @property
    def has_ended(self) -> bool:
        return self._life.done()

    async def ask(self, **what: Any) -> dict[str, Any]:
        """The answer to a question. Raises InputError where the environment cannot be made, RatchetError for a fault of it.

        Waits for: the process.
        Until: the conversation ends; environment.turn_s bounds each of its turns.
        Ended by: its answer, its end, or a cancellation, which is passed on.
        Metric: ratchet_rollout_environment_seconds.
        """
        writer = await asyncio.shield(self._ready)
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        writer.write(json.dumps({"id": number, **what}).encode() + b"\n")
        try:
            answer = await self._answers[number]
        except asyncio.CancelledError:
            writer.write(json.dumps({"cancel": number}).encode() + b"\n")
            raise
        finally:
            del self._answers[number]
        if "fault" in answer:
            raise RatchetError(f"the environment failed: {answer['fault']}")
        return answer

    async def _live(self) -> None:
        """The process from its start to its end, which its loop's end brings.

        Waits for: its answers.
        Until: there is no deadline.
        Ended by: its end, or that of the loop, which kills it.
        Metric: none; conversations wait for it, and theirs is ratchet_rollout_environment_seconds.
        """
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._variables,
            start_new_session=True,
            limit=LONGEST_LINE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.create_task(end_of(process.stderr))
        try:
            while line := await process.stdout.readline():
                self._take(json.loads(line), process.stdin)
            said = (await errors).decode("utf-8", "replace").strip()[-SHOWN_CHARACTERS:]
            if self._ready.done():
                self._give_up(RatchetError(f"the process of the environment ended: {said or 'it said nothing'}"))
            else:
                self._give_up(self._cannot_be_made(said or "it ended and said nothing; name an interpreter of Python"))
        except (ValueError, KeyError) as fault:
            self._give_up(RatchetError(f"the process of the environment answered what cannot be read: {fault}"))
        finally:
            errors.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())

    def _take(self, answer: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "id" in answer:
            waiting = self._answers.get(answer["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        elif "ready" in answer:
            self._ready.set_result(writer)
        else:
            self._give_up(self._cannot_be_made(answer["fault"]))

    def _cannot_be_made(self, said: str) -> InputError:
        python = self._command[0]
        install = f"; install it there: {python} -m pip install verifiers" if NOT_INSTALLED in said else ""
        return InputError(
            f'environment.options: "verifiers" cannot make this environment in python = "{python}": {said}{install}'
        )

    def _give_up(self, fault: Exception) -> None:
        asked: list[asyncio.Future[Any]] = [self._ready, *self._answers.values()]
        for waiting in asked:
            if not waiting.done():
                waiting.set_exception(fault)
                waiting.exception()  # nobody may be waiting


_processes: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, BridgeProcess]]" = WeakKeyDictionary()


def process_of_this_loop(python: str, environment: str, variables: Mapping[str, str]) -> BridgeProcess:
    """The one for these settings; another in place of one that has ended."""
    known = _processes.setdefault(asyncio.get_running_loop(), {})
    name = json.dumps([python, environment, sorted(variables.items())])
    if name not in known or known[name].has_ended:
        known[name] = BridgeProcess(python, environment, variables)
    return known[name]
