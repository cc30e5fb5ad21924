"""Reads checkpoints of ratchet 0.1.0, which hold DeepSpeed's own files: on the same ranks at the same ZeRO stage.

The next checkpoint is one by parameter (engine_state.py), which goes on anywhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from learner.engine.reference_weights import ReferenceWeights
from services.errors import InputError

TAG = "engine"
"""The folder of DeepSpeed's files in such a checkpoint."""


def is_of_before(folder: Path) -> bool:
    """Whether a checkpoint is in that format."""
    return (folder / TAG).is_dir()


def load_of_before(
    folder: Path,
    written: Mapping[str, Any],
    wrapped: Any,
    reference: ReferenceWeights,
    *,
    ranks: int,
    rank: int,
    stage: int,
    has_adapters: bool,
) -> None:
    """Load weights, optimizer and reference. written: engine.json. wrapped: DeepSpeed's engine. Raises InputError for another
    number of ranks or another stage."""
    for key, own in (("ranks", ranks), ("zero_stage", stage)):
        if written[key] != own:
            raise InputError(
                f"the checkpoint {folder} is of ratchet 0.1.0 and was written with learner.{key} = {written[key]}, this learner "
                f"has {own}; start it with the same value, and change it after its next checkpoint"
            )
    wrapped.load_checkpoint(
        str(folder),
        tag=TAG,
        load_lr_scheduler_states=False,
        load_module_strict=not has_adapters,  # beside adapters, what is frozen is not in the checkpoint
    )
    part = rank if stage == 3 else 0
    kept, earlier = folder / f"reference_rank_{part}.pt", folder / f"earlier_reference_rank_{part}.pt"
    copies = torch.load(kept, map_location="cpu", weights_only=True)
    before = torch.load(earlier, map_location="cpu", weights_only=True) if earlier.exists() else copies
    reference.set(copies, before, is_current=written["reference_is_current"])
