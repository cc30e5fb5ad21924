"""How much memory the host has, and how much of it is free."""

import os
from pathlib import Path


def host_memory_bytes() -> int:
    """Memory of this machine, or what the container's control group allows where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = container_memory_limit()
    return total if limit is None else min(total, limit)


def container_memory_limit() -> int | None:
    """The limit of this control group in bytes; None: no limit."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(Path(path).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # not this version of control groups, or "max": no limit
    return None


def available_bytes() -> int:
    """Memory that processes of this host, or of the container where there is one, can still take; files in the cache, which make
    room, count as free."""
    free = _number_in("/proc/meminfo", "MemAvailable:") * 1024
    limit = container_memory_limit()
    if limit is None:
        return free
    for usage, statistics in (
        ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
        ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat"),
    ):
        try:
            used = int(Path(usage).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        return max(0, min(free, limit - used + _number_in(statistics, "inactive_file")))
    return min(free, limit)


def _number_in(path: str, name: str) -> int:
    """The number behind a name in a file of the kernel's; 0 if it is not there."""
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) for line in lines if line.startswith(name + " ") or line.startswith(name + "\t")), 0
    )
