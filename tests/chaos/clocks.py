"""Wall clocks that jump, forwards and backwards, while a process runs: nobody sets the clock of the machine.

Redis, whose clock decides about leases and idle claims, gets a false one from libfaketime, a package of Debian; where that is not
installed its clock cannot jump. A service of ours gets a `time.time` that reads an offset from a file. Monotonic clocks go on
unmoved, as the kernel's do when somebody sets the time.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from services.command.redis_binary import find_binary

LIBRARIES = "lib/*/faketime/libfaketime.so.1", "lib64/faketime/libfaketime.so.1"
NOTICED_S = 1
"""Seconds after which Redis has the new time: libfaketime reads its file so often."""


def library() -> Path | None:
    """libfaketime, if it is installed."""
    return next((file for pattern in LIBRARIES for file in Path("/usr").glob(pattern)), None)


def clock_of(folder: Path, service: str) -> Path:
    """The file that says by how many seconds this service's clock is wrong."""
    return folder / f"clock-{service}"


def jump(clock: Path, seconds: float) -> None:
    """Move a clock by so much, for good."""
    offset_s = float(clock.read_text(encoding="utf-8")) if clock.exists() else 0.0
    draft = clock.with_name(f"{clock.name}.draft")
    draft.write_text(f"{offset_s + seconds:+.3f}\n", encoding="utf-8")  # as libfaketime reads it
    draft.rename(clock)


def follow(clock: Path) -> None:
    """Give this process a wall clock that is as wrong as the file says."""
    right_s = time.time

    def wrong_s() -> float:
        try:
            return right_s() + float(clock.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return right_s()

    setattr(time, "time", wrong_s)  # noqa: B010 - a function of a module is replaced


@contextlib.contextmanager
def redis_with(clock: Path, folder: Path) -> Iterator[bool]:
    """Every Redis server that this process starts meanwhile has that clock; False where libfaketime is not installed.

    folder: for a program named redis-server, which is put in front of PATH.
    """
    preloaded = library()
    if preloaded is None:
        yield False
        return
    jump(clock, 0.0)
    before, server = os.environ["PATH"], find_binary()[0]
    program = folder / "redis-server"
    program.write_text(
        f"#!/bin/sh\nexec env LD_PRELOAD={preloaded} FAKETIME_TIMESTAMP_FILE='{clock}' "
        f"FAKETIME_CACHE_DURATION={NOTICED_S} FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 '{server}' \"$@\"\n",
        encoding="utf-8",
    )
    program.chmod(0o700)
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield True
    finally:
        os.environ["PATH"] = before
