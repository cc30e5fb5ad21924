"""Who this process is among others on its machine: for NCCL, which host; for the run, which replica.

Containers that share the network of their machine (network_mode: host) all have its name, so that a name is not enough.
"""

import fcntl
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import TextIO

_kept: list[TextIO] = []
"""Lock files of this process, which hold until it ends."""


def name_nccl_host() -> None:
    """Tell NCCL which processes are on one host with this one, unless NCCL_HOSTID is set: those that share its memory.

    By default NCCL goes by the name and the boot of the machine, takes two containers with the same for one host, and tries
    shared memory and process ids that they do not share. To be called before NCCL is used.
    """
    os.environ.setdefault("NCCL_HOSTID", nccl_host())


def nccl_host(shared_memory: Path = Path("/dev/shm"), processes: Path = Path("/proc/self/ns/pid")) -> str:
    """A name that is the same for processes with the same shared memory and the same process ids, and for no others."""
    parts = [socket.gethostname(), _read(Path("/proc/sys/kernel/random/boot_id"))]
    for place in (shared_memory, processes):
        try:
            found = place.stat()
        except OSError:
            parts.append("none")
        else:
            parts.append(f"{found.st_dev:x}.{found.st_ino:x}")
    return "-".join(parts)


def replica_name(folder: Path | None = None) -> str:
    """The host's name with a suffix that no other replica has, and that this one has again when it is started again.

    The suffix is drawn once and kept in a file under `folder`, by default that of caches (XDG_CACHE_HOME), which is a volume
    where the root of a container is read-only, or the temporary folder. A process holds its file for as long as it lives, so
    that a second replica beside it takes a second file.
    Where nothing can be written, each start has a new suffix.
    """
    place = (
        folder or Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir())
    ) / f"ratchet-replicas-{os.getuid()}"
    suffix = secrets.token_hex(3)
    try:
        place.mkdir(exist_ok=True)
        for number in range(1024):
            held = (place / str(number)).open("a+", encoding="ascii")
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.close()
                continue
            _kept.append(held)
            held.seek(0)
            suffix = held.read().strip() or suffix
            held.seek(0)
            held.truncate()
            held.write(suffix)
            held.flush()
            break
    except OSError:
        pass  # the suffix of this start alone
    return f"{socket.gethostname()}-{suffix}"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return "none"
