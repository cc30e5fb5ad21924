"""What each grader is. It is found out in a process of its own: importing all graders would bring sympy into the service,
and one that cannot be imported must not end the service. `python -m verifier.registry` reads the graders' names and places
from standard input and prints the entries as JSON.
"""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from services.errors import ServiceFailed
from services.metrics import waiting
from verifier.grader import LaneName, load_grader

DESCRIBE_DEADLINE_S = 120.0  # takes one or two seconds; the machine may be very busy when a run starts


class Entry(msgspec.Struct, frozen=True):
    """One grader, as the service knows it."""

    name: str
    location: str
    """module:class."""
    lane: LaneName = "process"
    version: str = ""
    cached: bool = False
    summary: str = ""
    """First paragraph of its module's docstring."""
    options: dict[str, Any] = {}
    """JSON schema of the grader's options."""
    fault: str = ""
    """Why it cannot be used; empty: it can be."""


Catalogue = Mapping[str, Entry]


def describe(name: str, location: str) -> Entry:
    """The entry of one grader, which is imported for it."""
    try:
        grader_class = load_grader(location)
        (schema,), components = msgspec.json.schema_components([grader_class], ref_template="#/$defs/{name}")
        return Entry(
            name=name,
            location=location,
            lane=grader_class.lane,
            version=str(grader_class.version),
            cached=bool(grader_class.cached),
            summary=(inspect.getdoc(sys.modules[grader_class.__module__]) or "").split("\n\n")[0].replace("\n", " "),
            options={**schema, "$defs": components},
        )
    except Exception as fault:
        return Entry(name=name, location=location, fault=f"{type(fault).__name__}: {fault}")


async def catalogue(graders: Mapping[str, str]) -> dict[str, Entry]:
    """The entries of these graders. A grader whose import ends the process, or never returns, gets a fault.

    graders: name -> module:class. Raises ServiceFailed when a grader prints to standard output.

    Waits for: a process that imports the graders.
    Until: DESCRIBE_DEADLINE_S, once more for each grader that ends the process.
    Ended by: the end of the process, or its deadline.
    Metric: ratchet_waiting{room="verifier", awaiting="graders"}.
    """
    command = [sys.executable, "-P", "-m", "verifier.registry"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        with waiting("verifier", "graders"):
            async with asyncio.timeout(DESCRIBE_DEADLINE_S):
                said, _ = await process.communicate(json.dumps(dict(graders)).encode())
    except TimeoutError:
        said = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    entries = {entry.name: entry for entry in map(_read_entry, said.splitlines())}
    if missing := [name for name in graders if name not in entries]:
        # One line for each, in order: the first without a line ended the process, or never returned.
        entries[missing[0]] = Entry(
            missing[0], graders[missing[0]], fault="importing it ends the process, or never returns"
        )
        rest = {name: graders[name] for name in missing[1:]}
        if rest:
            entries |= await catalogue(rest)
    return entries


def _read_entry(line: bytes) -> Entry:
    try:
        return msgspec.json.decode(line, type=Entry)
    except msgspec.MsgspecError as fault:
        raise ServiceFailed(f"a grader prints to standard output when it is imported: {line[:100]!r}") from fault


def main() -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a grader prints while it is imported is not part of the answer
    for name, location in json.load(sys.stdin).items():
        output.write(msgspec.json.encode(describe(name, location)) + b"\n")
        output.flush()


if __name__ == "__main__":
    main()
