"""The tensors of a checkpoint, looked at before they are loaded.

torch writes a checksum of every tensor and reads without comparing it: a changed bit would be trained on without a word. That
every file is there and has its size is known before an engine starts (services/run/checkpoint_files.py).
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from services.run.checkpoint_files import Damaged

ENDING = "*.pt"


def damage_of_parts(
    checkpoint: Path, rank: int, world_size: int, sum_over_ranks: Callable[[Tensor], Tensor]
) -> Damaged | None:
    """Compare every file with its checksums, this rank its share of them, which reads them once more. The same on every rank:
    the first file that was cut off or changed; None: there is none."""
    paths = sorted(checkpoint.rglob(ENDING))
    faults = {number: fault_of(paths[number]) for number in range(rank, len(paths), world_size)}
    found = torch.tensor([float(faults.get(number) is not None) for number in range(len(paths))])
    for number in sum_over_ranks(found).nonzero().flatten().tolist():
        why = faults.get(number) or "a rank could not read it as it was written"
        return Damaged(checkpoint, str(paths[number].relative_to(checkpoint)), why)
    return None


def fault_of(path: Path) -> str | None:
    """What is wrong with a file that torch wrote, if anything."""
    try:
        with zipfile.ZipFile(path) as parts:
            changed = parts.testzip()
    except zipfile.BadZipFile as fault:
        return f"{fault}; it was cut off or changed after it was written"
    except (OSError, EOFError, NotImplementedError, RuntimeError) as fault:
        return f"it cannot be read ({fault})"
    return None if changed is None else f"{changed} in it does not have the checksum that it was written with"
