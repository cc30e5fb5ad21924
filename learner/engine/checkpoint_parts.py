"""The tensors of a checkpoint, looked at before they are loaded.

torch writes a checksum of every tensor and reads without comparing it: a changed bit would be trained on without a word. That
every file is there and has its size is known before an engine starts (services/run/checkpoint_files.py).
"""

import zipfile
from pathlib import Path

from services.run.checkpoint_files import damaged

ENDING = "*.pt"


def check_parts(checkpoint: Path, rank: int, world_size: int) -> None:
    """Compare this rank's share of the files with their checksums, which reads them once more. Raises InputError, which names
    a file that was cut off or changed."""
    for path in sorted(checkpoint.rglob(ENDING))[rank::world_size]:
        if (why := _fault(path)) is not None:
            raise damaged(checkpoint, str(path.relative_to(checkpoint)), why)


def _fault(path: Path) -> str | None:
    """What is wrong with a file that torch wrote, if anything."""
    try:
        with zipfile.ZipFile(path) as parts:
            changed = parts.testzip()
    except zipfile.BadZipFile as fault:
        return f"{fault}; it was cut off or changed after it was written"
    except (OSError, EOFError, NotImplementedError, RuntimeError) as fault:
        return f"it cannot be read ({fault})"
    return None if changed is None else f"{changed} in it does not have the checksum that it was written with"
