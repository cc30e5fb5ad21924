"""Limits on all processes of a sandbox together, checked from outside several times a second while a test runs."""

import os

from verifier.sandbox.footprint import footprint, proportional_bytes
from verifier.sandbox.limits import Limits

LOOK_S = 0.05  # between two looks, the kernel's limits on each process bound what is used
INODES = 4096  # files in /tmp: even empty ones take memory, which the size of a tmpfs does not count
BLOCKS_SLACK_BYTES = 2**16


class Watch:
    """Watches one sandbox. Takes the time as an argument; never reads the clock."""

    def __init__(self, first: int, runner: int | None, limits: Limits) -> None:
        """first: the process from which all others descend. runner: a process that sees the sandbox's own /tmp, or None."""
        self._first = first
        self._limits = limits
        self._folder = None if runner is None else f"/proc/{runner}/root/tmp"
        self._cpu_before_s: float | None = None
        self._next_look_s = 0.0

    def begin(self, at_s: float) -> None:
        """Start to count the CPU time of a test."""
        self._cpu_before_s = None
        self._next_look_s = at_s + LOOK_S

    def broken(self, at_s: float) -> str | None:
        """The limit that is exceeded, in words; None if none is, or if the last look was less than LOOK_S ago."""
        if at_s < self._next_look_s:
            return None
        self._next_look_s = at_s + LOOK_S
        used, limits = footprint(self._first), self._limits
        if self._cpu_before_s is None:
            self._cpu_before_s = used.cpu_s
        memory = limits.memory_mb * 2**20
        if used.cpu_s - self._cpu_before_s > limits.wall_s:
            return f"CPU time over {limits.wall_s:g} s"
        if used.threads > limits.processes:
            return f"more than {limits.processes} processes and threads"
        if used.memory_bytes > memory:
            exact = proportional_bytes(used.processes)
            if exact is None or exact > memory:
                return f"memory over {limits.memory_mb} MB"
        return self._broken_by_files()

    def _broken_by_files(self) -> str | None:
        if self._folder is None:
            return None
        try:
            tmp = os.statvfs(self._folder)
        except OSError:  # the runner is just ending
            return None
        if tmp.f_files - tmp.f_ffree > INODES:
            return f"more than {INODES} files"
        if (tmp.f_blocks - tmp.f_bfree) * tmp.f_frsize > self._limits.file_mb * 2**20 + BLOCKS_SLACK_BYTES:
            return f"files over {self._limits.file_mb} MB"
        return None
