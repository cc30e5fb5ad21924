"""What this rank holds of the weights and of Adam's averages, parameter by parameter, at every ZeRO stage.

DeepSpeed keeps this rank's share in flat tensors that depend on the stage and on the number of ranks. Here it is one stretch of
each flattened parameter, under the parameter's name: from that every other number of ranks and every other stage can be served.

stage 0: every rank holds every parameter whole. 1 and 2: the ranks share out one flat tensor of all parameters, so a rank holds
some of them, the first and the last perhaps in part. 3: every rank holds its part of each. Layouts are those of DeepSpeed 0.19.8
(runtime/zero/stage_1_and_2.py, runtime/bf16_optimizer.py, runtime/zero/stage3.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learner.engine.optimizer import SkippableAdamW

AVERAGES = ("exp_avg", "exp_avg_sq")
"""Adam's state of an element, as torch names it."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive elements of one flattened parameter on this rank."""

    name: str
    start: int
    """The first of them in the parameter."""
    master: Tensor
    """float32 [n], what Adam steps; a view."""
    owner: Tensor
    """What Adam's state is kept under: the parameter itself, or the flat tensor that this is a stretch of."""
    offset: int
    """The first of them in `owner`."""
    parameter: Any

    def average(self, optimizer: SkippableAdamW, key: str) -> Tensor:
        """float32 [n], a view; for an owner that has made a step."""
        flat: Tensor = optimizer.state[self.owner][key].view(-1)
        return flat.narrow(0, self.offset, len(self.master))


def held_stretches(named: Sequence[tuple[str, Any]], optimizer: SkippableAdamW, zero: Any, stage: int) -> list[Stretch]:
    """The stretches on this rank. named: the trained parameters. zero: DeepSpeed's optimizer; not looked at at stage 0."""
    if stage == 0:
        return [Stretch(name, 0, p.detach().view(-1), p, 0, p) for name, p in named]
    return list(_of_flat_tensors(named, optimizer) if stage < 3 else _of_partitions(named, zero))


def _of_flat_tensors(named: Sequence[tuple[str, Any]], optimizer: SkippableAdamW) -> Iterator[Stretch]:
    for name, parameter in named:
        mapping = parameter._hp_mapping
        if mapping is not None:  # otherwise other ranks hold all of it
            (flat,) = optimizer.param_groups[mapping.param_group_index]["params"]
            address = mapping.hp_fragment_address
            master = flat.detach().narrow(0, address.start, address.numel)
            yield Stretch(name, mapping.lp_fragment_address.start, master, flat, address.start, parameter)


def _of_partitions(named: Sequence[tuple[str, Any]], zero: Any) -> Iterator[Stretch]:
    for name, parameter in named:
        start, size = partition_of(parameter)
        if size > 0:
            group, offset, _ = zero.grad_position[zero.get_param_id(parameter)]
            flat = zero.fp32_partitioned_groups_flat[group]
            yield Stretch(name, start, flat.detach().narrow(0, offset, size), flat, offset, parameter)


def partition_of(parameter: Any) -> tuple[int, int]:
    """(first element, number of elements) of this rank's part at stage 3; what lies behind them is padding."""
    width = parameter.ds_tensor.numel()
    start = width * torch.distributed.get_rank()
    return start, max(0, min(width, parameter.ds_numel - start))


def steps_of(stretches: Sequence[Stretch], optimizer: SkippableAdamW) -> dict[str, float]:
    """Adam's count of steps by parameter, of those that have made one."""
    states = {stretch.name: optimizer.state.get(stretch.owner) for stretch in stretches}
    return {name: float(state["step"]) for name, state in states.items() if state and float(state["step"]) > 0}


def set_steps(stretches: Sequence[Stretch], optimizer: SkippableAdamW, steps: dict[str, float]) -> None:
    """Set Adam's counts, and its averages to 0. steps: see `steps_of`. A flat tensor has one count for all its parameters: the
    largest, which is that of all but parameters that had no gradient at stage 0."""
    counts: dict[int, float] = {}
    for stretch in stretches:
        counts[id(stretch.owner)] = max(counts.get(id(stretch.owner), 0.0), steps.get(stretch.name, 0.0))
    fused = bool(optimizer.defaults["fused"])
    for owner in {id(stretch.owner): stretch.owner for stretch in stretches}.values():
        count, state = counts[id(owner)], optimizer.state.get(owner)
        if not state and count > 0:
            state = optimizer.state[owner] = {
                "step": torch.zeros((), device=owner.device if fused else "cpu"),
                **{key: torch.zeros_like(owner, memory_format=torch.preserve_format) for key in AVERAGES},
            }
        if state:
            state["step"].fill_(count)
            for key in AVERAGES:
                state[key].zero_()


@torch.no_grad()
def take_over(stretches: Sequence[Stretch], zero: Any, stage: int) -> None:
    """Set the model's parameters to their float32 masters. Collective at stages 1 and 2."""
    if stage in (1, 2):
        zero.update_lp_params()
    elif stage == 3:
        for stretch in stretches:
            stretch.parameter.ds_tensor.view(-1)[: len(stretch.master)].copy_(stretch.master)
