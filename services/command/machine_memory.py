"""How much memory the host has."""

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
