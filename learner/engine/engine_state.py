"""Puts the state of one rank's engine into its file of a checkpoint, and gets it back from those of all ranks.

What there is: weights and Adam's averages (held_state.py), the reference (reference_weights.py), the model's buffers, and
engine.json, which says what they belong to.
"""

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from learner.engine.held_state import AVERAGES, Stretch, held_stretches, set_steps, steps_of, take_over
from learner.engine.optimizer import SkippableAdamW
from learner.engine.part_writer import PartWriter
from learner.engine.policy_model import PolicyModel
from learner.engine.reference_weights import ReferenceWeights
from learner.engine.state_files import Columns, Saved, check_same_model, part_name


class EngineState:
    """The state of one rank's engine. `load` is collective."""

    def __init__(self, model: PolicyModel, optimizer: SkippableAdamW, zero: Any, stage: int) -> None:
        """zero: DeepSpeed's optimizer around this one, from stage 1 on."""
        self._model = model
        self._named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._optimizer = optimizer
        self._zero = zero
        self._stage = stage
        self._names = {id(p): name for name, p in self._named}
        self.parameters = {name: p.ds_numel if stage == 3 else p.numel() for name, p in self._named}  # type: ignore[attr-defined]
        """The trained parameters and how many elements each has, for engine.json."""
        self.writer = PartWriter(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        """Writes this rank's file."""

    def save(self, folder: Path, reference: ReferenceWeights, *, in_background: bool) -> None:
        """Write this rank's file; the writer says when that is done, and what kept it from it."""
        stretches = self._written()
        rest = {
            "steps": steps_of(stretches, self._optimizer),
            "buffers": {name: buffer.detach().cpu().clone() for name, buffer in self._model.named_buffers_kept()},
        }
        self.writer.write(
            folder / part_name(dist.get_rank()), self._columns(stretches, reference), rest, in_background=in_background
        )

    def load(
        self, folder: Path, written: dict[str, int], reference: ReferenceWeights, *, reference_is_current: bool
    ) -> None:
        """Read what this rank holds. written: the parameters of engine.json. Raises InputError where they are not the model's, or
        an element is in no file."""
        check_same_model(folder, written, self.parameters)
        saved = Saved(folder)
        reference.release()
        stretches = self._stretches()
        set_steps(stretches, self._optimizer, saved.steps)
        for stretch in stretches:
            saved.copy("weights", stretch.name, stretch.start, stretch.master)
            for key in AVERAGES if stretch.name in saved.steps else ():
                saved.copy(key, stretch.name, stretch.start, stretch.average(self._optimizer, key))
        take_over(stretches, self._zero, self._stage)
        for name, buffer in self._model.named_buffers_kept():
            if name in saved.buffers:
                buffer.copy_(saved.buffers[name])
        reference.load(saved, self._name_of, is_current=reference_is_current)

    def averages(self, key: str) -> dict[str, Tensor]:
        """What this rank holds of one of Adam's averages, flat, on the CPU, by parameter: a copy. Empty before the first step."""
        stretches = [s for s in self._stretches() if self._optimizer.state.get(s.owner)]
        return {s.name: s.average(self._optimizer, key).to("cpu", copy=True) for s in stretches}

    def _stretches(self) -> list[Stretch]:
        return held_stretches(self._named, self._optimizer, self._zero, self._stage)

    def _written(self) -> list[Stretch]:
        """The stretches that are in this rank's file: at stage 0, where all hold everything, rank 0 writes it."""
        return [] if self._stage == 0 and dist.get_rank() > 0 else self._stretches()

    def _name_of(self, parameter: nn.Parameter) -> str:
        return self._names[id(parameter)]

    def _columns(self, stretches: list[Stretch], reference: ReferenceWeights) -> Columns:
        """What goes into this rank's file, as it is now: views."""
        moved = steps_of(stretches, self._optimizer)
        columns: Columns = {"weights": {s.name: (s.start, s.master) for s in stretches}}
        for key in AVERAGES:
            columns[key] = {s.name: (s.start, s.average(self._optimizer, key)) for s in stretches if s.name in moved}
        if self._stage == 3 or dist.get_rank() == 0:
            columns |= reference.columns(self._name_of)
        return {
            column: {name: (start, v.detach()) for name, (start, v) in by.items()} for column, by in columns.items()
        }
