"""Logs that do not fill the disk: what is beyond a size moves to `NAME.1`, of which there is one."""

import os
import shutil
from pathlib import Path

LOG_BYTES = 64 * 2**20
"""Size of a log, of which there is one more before it."""


def bound_log(path: Path, limit_bytes: int = LOG_BYTES) -> None:
    """Move what a log holds to `NAME.1` once that is more than limit_bytes. The process that appends to it goes on with the same
    file; a line that it writes in between is lost."""
    if path.exists() and path.stat().st_size > limit_bytes:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)
