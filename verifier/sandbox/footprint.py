"""What a tree of processes uses together, read from /proc, because the kernel's limits hold for single processes."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LISTS_CHILDREN = Path("/proc/thread-self/children").exists()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Footprint:
    threads: int
    cpu_s: float
    """CPU time, with that of ended children whose parent has waited for them."""
    memory_bytes: int
    """Private and shared memory; a page that a fork shares with its parent counts for both."""
    processes: tuple[int, ...]


def footprint(root: int) -> Footprint:
    """What the process and all its descendants use. Processes that end while this looks are left out."""
    threads, ticks, memory = 0, 0, 0
    processes = descendants(root)
    for pid in processes:
        try:
            numbers = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        threads += int(numbers[17])
        ticks += sum(map(int, numbers[11:15]))
        for line in status.splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                memory += int(line.split()[1]) * 1024
    return Footprint(threads, ticks / TICKS_PER_S, memory, tuple(processes))


def proportional_bytes(processes: tuple[int, ...]) -> int | None:
    """Memory of the processes, each shared page divided among those that share it; slower. None if the kernel does not say."""
    total = 0
    for pid in processes:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return None
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total


def descendants(root: int) -> list[int]:
    """The process and all its descendants, itself first."""
    children = _children_listed if LISTS_CHILDREN else _children_of_all()
    found = [root]
    for pid in found:
        found += children(pid)
    return found


def _children_listed(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="utf-8").split())
    except OSError:
        pass  # it has ended; its children now belong to another process, where the next look finds them
    return found


def _children_of_all() -> Callable[[int], list[int]]:
    """For kernels without CONFIG_PROC_CHILDREN: reads every process of the machine once."""
    by_parent: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        try:
            stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace") if name.isdigit() else ""
        except OSError:
            continue
        if stat:
            by_parent.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    return lambda pid: by_parent.get(pid, [])
