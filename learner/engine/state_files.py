"""The tensors of a checkpoint: one file for each rank that wrote it, with stretches of flattened parameters under their names.

A rank reads from every file what it holds itself, so it does not matter how many ranks wrote them, nor at which ZeRO stage.
Files are mapped, not read whole.

A file holds {"columns": {column: {parameter: [(first element, elements)]}}, "steps": {parameter: Adam's count of steps},
"buffers": {name: tensor}}. Columns: weights, exp_avg, exp_avg_sq, reference, earlier_reference.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.errors import InputError
from services.numbers import count

Columns = dict[str, dict[str, tuple[int, Tensor]]]
"""Column -> parameter -> (first element, elements) of what one rank holds."""


def part_name(rank: int) -> str:
    """The file of one rank."""
    return f"rank-{rank:05d}.pt"


def parts_of(checkpoint: Path) -> list[dict[str, Any]]:
    """What the files of a checkpoint hold, in the order of their ranks."""
    paths = sorted(checkpoint.glob("rank-*.pt"))
    return [torch.load(path, map_location="cpu", mmap=True, weights_only=True) for path in paths]


class Saved:
    """The tensors of a checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._stretches: dict[tuple[str, str], list[tuple[int, Tensor]]] = defaultdict(list)
        self.steps: dict[str, float] = {}
        """Adam's count of steps by parameter, of those that have made one."""
        self.buffers: dict[str, Tensor] = {}
        """Buffers that belong to the model."""
        for part in parts_of(checkpoint):
            for column, by_name in part["columns"].items():
                for name, (start, values) in by_name.items():
                    self._stretches[column, name].append((start, values))
            self.steps |= part["steps"]
            self.buffers |= part["buffers"]

    def has(self, column: str) -> bool:
        """Whether anything is saved in the column."""
        return any(column == found for found, _ in self._stretches)

    @torch.no_grad()
    def copy(self, column: str, name: str, start: int, into: Tensor) -> None:
        """Copy the elements of a parameter from `start` on into a flat tensor, in its dtype. Raises InputError if one is
        missing."""
        end, copied = start + len(into), 0
        for first, values in self._stretches[column, name]:
            low, high = max(start, first), min(end, first + len(values))
            if low < high:
                into[low - start : high - start].copy_(values[low - first : high - first])
                copied += high - low
        if copied != len(into):
            raise InputError(
                f"the checkpoint {self._checkpoint} has {copied} of the {len(into)} elements of {column} of {name} from {start} "
                "on: another version of ratchet wrote it; resume with the version that wrote it, or start a new run from its "
                "export"
            )


def check_same_model(checkpoint: Path, saved: Mapping[str, int], own: Mapping[str, int]) -> None:
    """Compare the trained parameters of a checkpoint with those of the model: elements by name. Raises InputError, which says in
    what they differ."""
    if saved == own:
        return
    lines = [f"{name}: only in the checkpoint" for name in _missing(saved, own)]
    lines += [f"{name}: only in the model" for name in _missing(own, saved)]
    lines += [
        f"{name}: {count(saved[name])} elements in the checkpoint, {count(own[name])} in the model"
        for name in saved
        if name in own and saved[name] != own[name]
    ]
    shown = "\n  ".join(lines[:5])
    more = f"\n  and {len(lines) - 5} more" if len(lines) > 5 else ""
    raise InputError(
        f"the checkpoint {checkpoint} is of a model of another shape than model.path:\n  {shown}{more}\n"
        "Put back the model that it was trained with, or choose another name for a new run"
    )


def _missing(names: Iterable[str], there: Mapping[str, int]) -> list[str]:
    return [name for name in names if name not in there]
