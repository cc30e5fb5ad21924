"""How much memory this machine has: of its host, and of each GPU that this process may use."""

import os
import shutil
import subprocess
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


def gpu_memories() -> list[int]:
    """Bytes of each GPU of this machine, as its driver says; [] where there is none, or no answer.

    Waits for: nvidia-smi.
    Until: 30 s.
    Ended by: its answer, or the deadline, which kills it.
    Metric: none; commands serve none.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        answer = subprocess.run(
            [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return [int(line) * 2**20 for line in answer.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
