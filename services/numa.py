"""libnuma, which vLLM's CPU build is linked with and no wheel carries: the system's, or a copy in the environment.

scripts/setup.sh installs Debian's package where it runs as root; for an ordinary user it puts the file of that package
into the environment's own folder, where no linker looks. So a process that imports vLLM calls `provide` before.
"""

import ctypes
import os
import sys
from pathlib import Path

from services.errors import InputError

LIBRARY = "libnuma.so.1"
SEARCHED_VARIABLE = "LD_LIBRARY_PATH"
ADVICE = "install it (Debian, Ubuntu: apt-get install libnuma1; Fedora: dnf install numactl-libs)"


def own_copy() -> Path:
    """Where scripts/setup.sh keeps it when the system has none."""
    return Path(sys.prefix) / "lib" / "native" / LIBRARY


def find() -> str | None:
    """What a process of ours would be linked with: the library's name if the system has it, else the copy's path."""
    for candidate in (LIBRARY, str(own_copy())):
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return candidate
    return None


def provide() -> None:
    """Load it into this process, by the name that others ask for, and let the processes that it starts find it.

    Raises InputError when there is none."""
    found = find()
    if found is None:
        raise InputError(f"vLLM's CPU build needs {LIBRARY}, and this machine does not have it; {ADVICE}")
    if found == LIBRARY:
        return
    folders = [str(own_copy().parent), *filter(None, os.environ.get(SEARCHED_VARIABLE, "").split(":"))]
    os.environ[SEARCHED_VARIABLE] = ":".join(dict.fromkeys(folders))
