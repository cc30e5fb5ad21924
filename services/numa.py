"""libnuma, which vLLM's CPU build is linked with and no wheel carries: the system's, or a copy in the environment.

scripts/setup.sh installs Debian's package where it runs as root; for an ordinary user it puts the file of that package
into the environment's own folder, where no linker looks. So a process calls `provide` before it imports vLLM.
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
    """Where scripts/setup.sh keeps the library if the system does not have it."""
    return Path(sys.prefix) / "lib" / "native" / LIBRARY


def find() -> str | None:
    """What vLLM would be linked with: the library's name if the system has it, the path of our copy if that exists, or
    None."""
    for candidate in (LIBRARY, str(own_copy())):
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return candidate
    return None


def provide() -> None:
    """Load the library into this process under the name that vLLM asks for, and let child processes find it.

    Raises InputError if the machine does not have it."""
    found = find()
    if found is None:
        raise InputError(f"vLLM's CPU build needs {LIBRARY}, and this machine does not have it; {ADVICE}")
    if found == LIBRARY:
        return
    folders = [str(own_copy().parent), *filter(None, os.environ.get(SEARCHED_VARIABLE, "").split(":"))]
    os.environ[SEARCHED_VARIABLE] = ":".join(dict.fromkeys(folders))
