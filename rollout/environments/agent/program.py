"""How an agent is run: as a function in the environments' thread, or as a program of its own without secrets of the service."""

import asyncio
import contextlib
import importlib
import inspect
import json
import math
import os
import shlex
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from rollout.environments.environment import Subject
from services.errors import RatchetError
from services.threads import in_daemon_thread

PASSED_ON = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE")
"""Variables of the replica's environment that a program gets."""
KEPT_BYTES = 64 * 2**10
"""How much of what it prints is kept, the end of it."""

Agent = Callable[[Mapping[str, Any], str, str], Coroutine[Any, Any, float | None]]
"""(problem, base URL, key) -> its own reward, or None where the run's grader judges. Raises what went wrong."""


def told(subject: Subject, *, give_reference: bool) -> dict[str, Any]:
    """What an agent is told of a subject."""
    about: dict[str, Any] = {
        "prompt": subject.prompt,
        "messages": list(subject.messages),
        "row": subject.row,
        "seed": subject.seed,
        "options": dict(subject.options),
    }
    return about | ({"reference": subject.reference} if give_reference else {})


def function_agent(place: str) -> Agent:
    """The function `module:name`, async or not. Raises ValueError for what is none, or is called otherwise."""
    found = _function_at(place)

    async def run(problem: Mapping[str, Any], base_url: str, key: str) -> float | None:
        """Waits for: the function.

        Until: the conversation ends; a thread is left behind then, and ends with its next request.
        Ended by: its end.
        Metric: ratchet_rollout_environment_seconds.
        """
        how = {"problem": problem, "base_url": base_url, "api_key": key}
        if inspect.iscoroutinefunction(found):
            return checked_reward(await found(**how))
        # In a thread of its own: those of an executor are few, and conversations would wait for one another's policy.
        return checked_reward(await asyncio.wrap_future(in_daemon_thread(partial(found, **how), "agent")))

    return run


def _function_at(place: str) -> Callable[..., Any]:
    """Raises ValueError, which says what to do."""
    said = f'function = "{place}"'
    module, _, name = place.partition(":")
    if not module or not name:
        raise ValueError(f'{said} is not of the form "module:name"')
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as fault:  # whatever its import raises
        raise ValueError(
            f"{said}: {module} cannot be imported: {type(fault).__name__}: {fault}; name the folder that it is in in PYTHONPATH, "
            "or install its package"
        ) from fault
    found: Callable[..., Any] | None = getattr(imported, name, None)
    if not callable(found):
        raise ValueError(f"{said}: {module} has no function {name}" if found is None else f"{said} is not a function")
    try:
        inspect.signature(found).bind(problem={}, base_url="", api_key="")
    except TypeError as fault:
        raise ValueError(f"{said} is called with problem, base_url and api_key, by these names: {fault}") from fault
    except ValueError:
        pass  # something built in, which does not say what it takes
    return found


def program_agent(command: Sequence[str], variables: Mapping[str, str]) -> Agent:
    """A program: the problem as JSON on its standard input, the address in OPENAI_BASE_URL and OPENAI_API_KEY."""

    async def run(problem: Mapping[str, Any], base_url: str, key: str) -> float | None:
        """Run it to its end. Raises RatchetError when it fails.

        Waits for: the program.
        Until: the conversation ends, which kills it.
        Ended by: its end.
        Metric: ratchet_rollout_environment_seconds.
        """
        environment = variables_for({**variables, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": key})
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(json.dumps(problem).encode())
            process.stdin.close()
            printed, errors = await asyncio.gather(end_of(process.stdout), end_of(process.stderr))
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
        if code != 0:
            said = errors.decode("utf-8", "replace").strip()[-500:] or "it wrote nothing to standard error"
            raise RatchetError(f"the agent `{shlex.join(command)[:200]}` ended with exit code {code}: {said}")
        return _printed_reward(printed.decode("utf-8", "replace"))

    return run


def variables_for(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: those of the replica's variables that hold no secrets, and its own."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | dict(own)


async def end_of(stream: asyncio.StreamReader) -> bytes:
    """The last KEPT_BYTES of a stream, once it has ended."""
    kept = bytearray()
    while part := await stream.read(2**16):
        kept += part
        del kept[:-KEPT_BYTES]
    return bytes(kept)


def _printed_reward(printed: str) -> float | None:
    """The reward in the last line, if that is an object with one."""
    lines = printed.strip().splitlines()
    try:
        last = json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        return None
    return checked_reward(last["reward"]) if isinstance(last, dict) and "reward" in last else None


def checked_reward(given: object) -> float | None:
    """The reward that an agent gave. Raises RatchetError for what is not a finite number."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise RatchetError(f"the agent gave the reward {given!r}, which is not a finite number")
    return float(given)
