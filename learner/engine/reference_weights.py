"""The weights of the reference policy: a copy of what this rank holds of each trained parameter, a shard at ZeRO stage 3.

What is frozen is the same for both policies, so beside adapters the reference is a copy of them alone.
To score with the reference, parameters point to the copy for the length of a forward without gradient. A moving average is
kept in float32, a copy in the model's dtype or rounded to bfloat16; `offload` keeps it in host memory. With `roll_back` there
is one more copy, of the reference before the last swap.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from learner.engine.held_state import partition_of
from learner.engine.policy_model import trained_parameters
from learner.engine.state_files import Columns, Saved
from services.config.reference import Reference
from services.errors import InputError

NameOf = Callable[[nn.Parameter], str]
"""The name of a parameter in a checkpoint."""
REFERENCE, EARLIER = "reference", "earlier_reference"
"""Columns of a checkpoint."""


def debiased_decay(decay: float, weight: float) -> tuple[float, float]:
    """(decay to blend with now, weight after it) of a moving average in which the first policy counts like any other.

    After k steps the policy of j steps ago has the share decay^j / (1 + decay + ... + decay^k) (PPO-EWMA's released code, as
    described; arXiv:2110.00641). weight: that sum before the step, 1 at the start; infinite where it is not known.
    """
    if math.isinf(weight):
        return decay, weight
    after = decay * weight + 1
    return decay * weight / after, after


class ReferenceWeights:
    """Begins as the current weights. Nothing here is collective, but a forward at stage 3 gathers: all ranks must do the same."""

    def __init__(self, model: nn.Module, settings: Reference, *, sharded: bool) -> None:
        """model: as ZeRO left it. sharded: whether that was at stage 3."""
        self._parameters: list[Any] = trained_parameters(model)
        self._sharded = sharded
        self._offload = settings.offload
        self._dtype = torch.bfloat16 if settings.dtype == "bfloat16" else None
        if settings.type == "ema":
            self._dtype = torch.float32  # bfloat16 would lose the small step of an average
        keeps_earlier = settings.type == "ratchet" and settings.roll_back is not None
        self.copies = [self._copy_of(self.shard_of(p)) for p in self._parameters]
        """The reference, as this rank's part of each trained parameter."""
        self._earlier = [self._copy_of(self.shard_of(p)) for p in self._parameters] if keeps_earlier else None
        self.average_weight = 1.0
        """What a debiased average has added up: the sum of the weights of all policies in it, the latest one's being 1."""
        self.is_current = True
        """Whether there was no optimizer step since it became the current policy, whose own weights, not rounded, then score
        for it."""

    # Moving it

    @torch.no_grad()
    def swap(self) -> None:
        """reference := current."""
        if self._earlier is not None:
            self._exchange(self._earlier)
        for copy, parameter in zip(self.copies, self._parameters, strict=True):
            copy.copy_(self.shard_of(parameter))
        self.is_current = True

    def _exchange(self, earlier: list[Tensor]) -> None:
        """Make the earlier copies the present ones, and the other way round."""
        self._earlier = self.copies
        self.copies = earlier

    def roll_back(self) -> None:
        """reference := what it was before the last swap; may be called once after each.

        Raises InputError where no earlier reference is kept.
        """
        if self._earlier is None:
            raise InputError("no earlier reference is kept; set learner.reference.roll_back")
        self._exchange(self._earlier)
        self.is_current = False

    @torch.no_grad()
    def blend(self, decay: float, *, debiased: bool = False) -> None:
        """reference := decay x reference + (1 - decay) x current. debiased: with the decay that this step has left of it."""
        if debiased:
            decay, self.average_weight = debiased_decay(decay, self.average_weight)
        for copy, parameter in zip(self.copies, self._parameters, strict=True):
            shard = self.shard_of(parameter)
            average = copy.to(shard.device)
            copy.copy_(average.lerp_(shard.to(average.dtype), 1 - decay))
        self.is_current = decay == 0

    # Scoring with it

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the model's parameters are the reference's. For forwards without gradient."""
        if self.is_current:
            yield
            return
        holders = [self.holder_of(p) for p in self._parameters]
        current = [holder.data for holder in holders]
        self.release()
        try:
            for holder, copy in zip(holders, self.copies, strict=True):
                holder.data = copy.to(holder.device, non_blocking=True).to(holder.dtype)
            self._settle(holders)
            yield
        finally:
            self.release()
            self._settle(holders)
            for holder, data in zip(holders, current, strict=True):
                holder.data = data

    def _settle(self, holders: list[Tensor]) -> None:
        """Wait for a GPU: at stage 3 DeepSpeed gathers on a stream of its own, which waits for no copy on this one."""
        if self._sharded and holders and holders[0].is_cuda:
            torch.cuda.synchronize(holders[0].device)

    # Checkpoints

    def columns(self, name_of: NameOf) -> Columns:
        """What this rank holds, for a checkpoint: views."""
        found = {REFERENCE: self._stretches(self.copies, name_of)}
        if self._earlier is not None:
            found[EARLIER] = self._stretches(self._earlier, name_of)
        return found

    def load(self, saved: Saved, name_of: NameOf, *, is_current: bool) -> None:
        """Read what this rank holds. In a checkpoint written without `roll_back`, the reference is the earlier reference, too."""
        self._read(saved, REFERENCE, self.copies, name_of)
        if self._earlier is not None:
            self._read(saved, EARLIER if saved.has(EARLIER) else REFERENCE, self._earlier, name_of)
        self.is_current = is_current

    def set(self, copies: Sequence[Tensor], earlier: Sequence[Tensor], *, is_current: bool) -> None:
        """Take over this rank's part of each trained parameter, and of the reference before the last swap."""
        for own, given in [(self.copies, copies), *([(self._earlier, earlier)] if self._earlier is not None else [])]:
            for copy, loaded in zip(own, given, strict=True):
                copy.copy_(loaded)
        self.is_current = is_current

    def _read(self, saved: Saved, column: str, copies: list[Tensor], name_of: NameOf) -> None:
        for name, (start, values) in self._stretches(copies, name_of).items():
            saved.copy(column, name, start, values)

    def _stretches(self, copies: list[Tensor], name_of: NameOf) -> dict[str, tuple[int, Tensor]]:
        """Parameter -> (first element, elements) of these copies; at stage 3 without the padding of the last part."""
        whole = {
            name_of(parameter): (partition_of(parameter) if self._sharded else (0, copy.numel()), copy.view(-1))
            for parameter, copy in zip(self._parameters, copies, strict=True)
        }
        return {name: (start, flat[:size]) for name, ((start, size), flat) in whole.items() if size > 0}

    # Inside

    def _copy_of(self, shard: Tensor) -> Tensor:
        place = torch.device("cpu") if self._offload else shard.device
        # Pinned: pageable memory moves several times more slowly.
        pinned = self._offload and shard.is_cuda
        return torch.empty(shard.shape, dtype=self._dtype or shard.dtype, device=place, pin_memory=pinned).copy_(shard)

    def release(self) -> None:
        """Partition what stage 3 left gathered after a forward, or it would be the other policy's."""
        if self._sharded:
            for parameter in self._parameters:
                if parameter.ds_status.name == "AVAILABLE":
                    parameter.partition()

    def shard_of(self, parameter: Any) -> Tensor:
        """The part of a parameter that this rank holds."""
        return self.holder_of(parameter).detach()

    def holder_of(self, parameter: Any) -> Tensor:
        """The tensor that holds that part."""
        holder: Tensor = parameter.ds_tensor if self._sharded else parameter
        return holder
