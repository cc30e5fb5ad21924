"""The JSON files of a checkpoint."""

from pathlib import Path
from typing import Any

from services.errors import InputError
from services.run.json_text import read_json

STATE = "state.json"
"""The file of a checkpoint that is written last; it has the state of the run, and the sizes of the others."""


def read_object(checkpoint: Path, name: str) -> dict[str, Any]:
    """The JSON object in the file `name` of a checkpoint. Raises InputError if it is missing, cut off or something else."""
    try:
        found = read_json((checkpoint / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise damaged(checkpoint, name, str(fault)) from fault
    if not isinstance(found, dict):
        raise damaged(checkpoint, name, "it does not hold a JSON object")
    return found


def sizes(checkpoint: Path) -> dict[str, int]:
    """Bytes of each file in a checkpoint, by its path in it; state.json, which keeps them, is not among them."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / STATE]
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in sorted(files)}


def check_whole(checkpoint: Path) -> None:
    """Compare the files of a checkpoint with the sizes that it was written with, if it says them. Raises InputError, which names
    one that is missing or of another size."""
    for name, size in read_object(checkpoint, STATE).get("files", {}).items():
        path = checkpoint / name
        if not path.is_file():
            raise damaged(checkpoint, name, "it is missing")
        if path.stat().st_size != size:
            raise damaged(checkpoint, name, f"it has {path.stat().st_size} bytes and was written with {size}")


def damaged(checkpoint: Path, name: str, why: str) -> InputError:
    """The error that says what is wrong with the file `name` of a checkpoint, and what to do."""
    return InputError(
        f"{checkpoint / name} is damaged: {why}. Delete the folder {checkpoint} to go on from the checkpoint before it; if there "
        "is none, the run starts from the beginning"
    )
