"""The JSON files of a checkpoint."""

from pathlib import Path
from typing import Any

from services.errors import InputError
from services.run.json_text import read_json


def read_object(checkpoint: Path, name: str) -> dict[str, Any]:
    """The JSON object in the file `name` of a checkpoint. Raises InputError if it is missing, cut off or something else."""
    try:
        found = read_json((checkpoint / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise damaged(checkpoint, name, str(fault)) from fault
    if not isinstance(found, dict):
        raise damaged(checkpoint, name, "it does not hold a JSON object")
    return found


def damaged(checkpoint: Path, name: str, why: str) -> InputError:
    """The error that says what is wrong with the file `name` of a checkpoint, and what to do."""
    return InputError(
        f"{checkpoint / name} is damaged: {why}. Delete the folder {checkpoint} to go on from the checkpoint before it; if there "
        "is none, the run starts from the beginning"
    )
