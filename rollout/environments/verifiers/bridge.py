"""Runs episodes of an environment of the package `verifiers`, in the Python in which that is installed.

The one argument is the environment's settings as JSON, as `verifiers` reads them ({"taskset": {"id": ...}, ...}). Requests come
as lines of JSON on standard input, and answers go out as lines on standard output:

    {"id": 1, "run": {"row": 5, "base_url": ..., "api_key": ...}}  ->  {"id": 1, "reward": 0.5}, or {"id": 1, "fault": ...}
    {"id": 2, "rows": 100}                                         ->  {"id": 2, "rows": [{"prompt": ..., "name": ...}, ...]}
    {"cancel": 1}

The first line out is {"ready": true}, or {"fault": ...}. What the environment prints goes to standard error. Nothing of Ratchet
is imported here: the two packages need other versions of the same libraries.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from typing import IO, Any

LONGEST_LINE = 2**20
MODEL = "policy"


class Tasks:
    """Those of a taskset, read as far as they were asked for: some never end."""

    def __init__(self, tasks: Iterator[Any]) -> None:
        self._more = tasks
        self._read: list[Any] = []

    def upto(self, count: int) -> list[Any]:
        while len(self._read) < count:
            task = next(self._more, None)
            if task is None:
                break
            self._read.append(task)
        return self._read[:count]

    def at(self, row: int) -> Any:
        """The task at this place, from 0. Raises IndexError."""
        if len(found := self.upto(row + 1)) <= row:
            raise IndexError(f"the taskset has {len(found)} tasks, and row {row} of the dataset is asked for")
        return found[row]


class Bridge:
    def __init__(self, environment: Any, out: IO[str]) -> None:
        """environment: a verifiers.v1.Env that is serving."""
        self._environment = environment
        self._tasks = Tasks(iter(environment.taskset))
        self._out = out
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self, requests: asyncio.StreamReader) -> None:
        """Answer until standard input ends."""
        while line := await requests.readline():
            asked = json.loads(line)
            if "cancel" in asked:
                if (running := self._running.get(asked["cancel"])) is not None:
                    running.cancel()
                continue
            number = asked["id"]
            self._running[number] = task = asyncio.create_task(self._answer(number, asked))
            task.add_done_callback(lambda _, number=number: self._running.pop(number, None))  # type: ignore[misc]
        for task in list(self._running.values()):
            task.cancel()

    async def _answer(self, number: int, asked: Mapping[str, Any]) -> None:
        try:
            if "rows" in asked:
                say(self._out, id=number, rows=[described(task) for task in self._tasks.upto(asked["rows"])])
            else:
                say(self._out, id=number, reward=await self._reward(number, **asked["run"]))
        except Exception as fault:  # the environment's, whatever it is
            say(self._out, id=number, fault=f"{type(fault).__name__}: {fault}")

    async def _reward(self, number: int, row: int, base_url: str, api_key: str) -> float:
        """One episode: the rewards of what the policy did in it. Raises RuntimeError with what went wrong."""
        from verifiers.v1 import EvalClientConfig, ModelContext

        # The only way in which the package takes a key. Its runtimes give programs no variable that has API_KEY in its name: what
        # the policy runs there could ask in the name of other conversations.
        variable = f"RATCHET_CONVERSATION_{number}_API_KEY"
        os.environ[variable] = api_key
        try:
            client = EvalClientConfig(base_url=base_url, api_key_var=variable)
            (slot,) = self._environment.slots(self._tasks.at(row))
            episode = await self._environment.run_slot(slot, ModelContext(model=MODEL, client=client))
        finally:
            del os.environ[variable]
        if not episode.ok:
            faults = [*episode.errors, *(fault for trace in episode.traces for fault in trace.errors)]
            raise RuntimeError("; ".join(f"{fault.type}: {fault.message}" for fault in faults) or "the episode failed")
        return float(sum(trace.reward for trace in episode.traces if trace.agent.trainable))


def described(task: Any) -> dict[str, Any]:
    return {"prompt": task.data.prompt_text, "name": task.data.name or task.key}


def say(out: IO[str], **what: Any) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


def own_output() -> IO[str]:
    """Standard output for this program alone; what anything else prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


async def main(settings: Mapping[str, Any]) -> None:
    out = own_output()
    async with AsyncExitStack() as stack:
        try:
            from verifiers.v1.utils.loaders import load_environment, resolve_env_config

            environment = load_environment(resolve_env_config(dict(settings)))
            await stack.enter_async_context(environment.serving())
        except (Exception, SystemExit) as fault:  # of the package, or of the environment's
            say(out, fault=f"{type(fault).__name__}: {fault}")
            return
        requests = asyncio.StreamReader(limit=LONGEST_LINE)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
        say(out, ready=True)
        await Bridge(environment, out).serve(requests)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(main(json.loads(sys.argv[1])))
