"""The files of a checkpoint, and whether they are as they were written.

state.json has the size of every other file, the digests of those in JSON and one of itself. Parts with tensors have checksums
of their own, which only the learner compares, because that reads all of them (learner/engine/checkpoint_parts.py).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.errors import InputError
from services.run.checkpoint_names import checkpoints_and_replaced
from services.run.json_text import json_text, read_json

STATE = "state.json"
"""The file of a checkpoint that is written last; it has the state of the run, and the sizes of the others."""
DIGEST = "digest"
"""The key of state.json with the digest of the others."""


class Damaged(InputError):
    """A file of a checkpoint is missing, or not as it was written."""

    def __init__(self, checkpoint: Path, name: str, why: str) -> None:
        """name: the file's path in the checkpoint."""
        super().__init__(
            f"{checkpoint / name} is damaged: {why}. Start the run again: it goes on from the checkpoint before it"
        )
        self.file = checkpoint / name
        self.why = why

    @property
    def what(self) -> str:
        """The file and its damage, without what to do."""
        return f"{self.file} is damaged: {self.why}"


def read_object(checkpoint: Path, name: str) -> dict[str, Any]:
    """The JSON object in the file `name` of a checkpoint. Raises Damaged if it is missing, cut off or something else."""
    try:
        found = read_json((checkpoint / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise Damaged(checkpoint, name, str(fault)) from fault
    if not isinstance(found, dict):
        raise Damaged(checkpoint, name, "it does not hold a JSON object")
    return found


def sizes(checkpoint: Path) -> dict[str, int]:
    """Bytes of each file in a checkpoint, by its path in it; state.json, which keeps them, is not among them."""
    return {name: path.stat().st_size for name, path in _files(checkpoint).items()}


def write_state(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Write state.json, the last file of a checkpoint, with what the others have to be."""
    texts = {name: _sha256(path.read_bytes()) for name, path in _files(checkpoint).items() if path.suffix == ".json"}
    content = {"files": sizes(checkpoint), "digests": texts, **state}
    content[DIGEST] = _digest(content)
    (checkpoint / STATE).write_text(json_text(content), encoding="utf-8")


def check_whole(checkpoint: Path) -> None:
    """Compare the files of a checkpoint with what state.json says of them, where it says it. Raises Damaged, which names one that
    is missing, of another size or, of those in JSON, changed."""
    state = read_object(checkpoint, STATE)
    if DIGEST in state and state[DIGEST] != _digest(state):
        raise Damaged(checkpoint, STATE, "it does not have the digest that it was written with")
    for name, size in state.get("files", {}).items():
        path = checkpoint / name
        if not path.is_file():
            raise Damaged(checkpoint, name, "it is missing")
        if path.stat().st_size != size:
            raise Damaged(checkpoint, name, f"it has {path.stat().st_size} bytes and was written with {size}")
    for name, digest in state.get("digests", {}).items():
        if _sha256((checkpoint / name).read_bytes()) != digest:
            raise Damaged(checkpoint, name, "it does not have the digest that it was written with")


def visible_damage(checkpoint: Path) -> Damaged | None:
    """What `check_whole` says of a checkpoint, which is found in milliseconds; None: nothing."""
    try:
        check_whole(checkpoint)
    except Damaged as fault:
        return fault
    return None


def newest_whole(
    folder: Path,
    warn: Callable[[str], None] = lambda _: None,
    damage_of: Callable[[Path], Damaged | None] = visible_damage,
) -> Path | None:
    """The newest checkpoint in a run's folder of them that is not damaged; None if there is no checkpoint.

    warn: told of each newer one that is damaged. Raises InputError, which names every file, if they all are.
    """
    faults: list[Damaged] = []
    for checkpoint in reversed(checkpoints_and_replaced(folder)):
        fault = damage_of(checkpoint)
        if fault is None:
            for found in faults:
                warn(f"{found.what}; going on from {checkpoint.name}, the checkpoint before it")
            return checkpoint
        faults.append(fault)
    if not faults:
        return None
    said = "\n".join(f"  {fault.what}" for fault in faults)
    raise InputError(
        f"no checkpoint in {folder} can be gone on from:\n{said}\n"
        "Put a copy of one of them in its place; or choose another name for a new run; or move that folder away to start this "
        "one from the beginning"
    )


def _files(checkpoint: Path) -> dict[str, Path]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / STATE)
    return {str(path.relative_to(checkpoint)): path for path in sorted(files)}


def _digest(state: Mapping[str, Any]) -> str:
    content = read_json(
        json_text({key: value for key, value in state.items() if key != DIGEST})
    )  # keys as they are read
    return _sha256(json.dumps(content, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
