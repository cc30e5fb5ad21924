"""The policy's weights as others know them: under the names and in the shapes of a checkpoint, copied where they are wanted.

transformers may fuse tensors in memory, and at ZeRO stage 3 a rank holds a part of each. So weights are taken in portions:
those of a portion are gathered, renamed and split together, and copied, before the next portion is gathered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from learner.engine.policy_model import PolicyModel
from learner.engine.protocol import TrainEngine
from services.weights.side_stream import Mark

GATHER_ELEMENTS = 2**27
"""A portion has about this many elements."""
Named = list[tuple[str, Tensor]]
Gather = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""Inside it these parameters are whole on this rank."""


def weight_copies(engine: TrainEngine, dtype: torch.dtype | None) -> Named:
    """Copies of an engine's current weights in memory of their own on the host: all of them on rank 0, [] on other ranks. Every
    rank calls it. dtype: see `TrainEngine.weight_shapes`."""
    shapes = engine.weight_shapes(dtype) if engine.rank == 0 else []
    copies = [(name, torch.empty_like(shape, device="cpu")) for name, shape in shapes]
    engine.copy_weights(dict(copies))
    Mark(engine.device).wait()
    return copies


class OutgoingWeights:
    """What leaves one model. Works on every rank alike; rank 0 alone copies."""

    def __init__(self, model: PolicyModel, gather: Gather, *, copies: bool) -> None:
        """copies: whether this rank is the one that copies."""
        self._model = model
        self._gather = gather
        self._copies = copies
        self._portions: list[list[str]] | None = None

    def shapes(self, dtype: torch.dtype | None) -> Named:
        """What is copied, as tensors on the meta device, which have a shape and a dtype and no content.

        dtype: that of all parameters; None leaves each its own. Buffers keep theirs: a router's bias is float32 in a
        bfloat16 model.
        """
        weights = [(name, _meta(weight, dtype or weight.dtype)) for name, weight in self._model.named_weights()]
        buffers = [(name, _meta(buffer, buffer.dtype)) for name, buffer in self._model.named_buffers_kept()]
        return self._model.under_checkpoint_names([*weights, *buffers])

    def copy(self, into: Mapping[str, Tensor]) -> None:
        """Copy every weight of now, its adapters in it, into the tensor of its name, cast to that tensor's dtype. Every rank has
        to call it.

        A GPU is given the work and does it in the order of its current stream: steps that are given to it later do not
        change what is copied, and whoever reads the copies waits for that stream first.
        """
        parameters = dict(self._model.named_weights())
        buffers = dict(self._model.named_buffers_kept())
        for portion in self._in_portions():
            weights = [name for name in portion if name in parameters]
            with self._gather([p for name in weights for p in (parameters[name], *self._model.factors(name))]):
                if not self._copies:
                    continue
                held = [(name, self._model.whole(name, parameters[name])) for name in weights]
                held += [(name, buffers[name]) for name in portion if name in buffers]
                for name, tensor in self._model.under_checkpoint_names(held):
                    _copy(tensor.detach(), into[name])

    def _in_portions(self) -> list[list[str]]:
        """Names in memory of what is taken together. The same on every rank: it follows from names and shapes."""
        if self._portions is None:
            self._portions = self._divide()
        return self._portions

    def _divide(self) -> list[list[str]]:
        """Most names can be converted each by itself; those that cannot are one portion, however large."""
        weights = [(name, _meta(weight, weight.dtype)) for name, weight in self._model.named_weights()]
        buffers = [(name, _meta(buffer, buffer.dtype)) for name, buffer in self._model.named_buffers_kept()]
        everything = dict([*weights, *buffers])
        whole = _described(self._model.under_checkpoint_names(everything.items()))
        alone: dict[str, set[str]] = {}
        for name, tensor in everything.items():
            if (names := self._converted_alone(name, tensor, whole)) is not None:
                alone[name] = names
        together = [name for name in everything if name not in alone]
        covered = [each for names in alone.values() for each in names]
        if together:
            covered += [name for name, _ in self._model.under_checkpoint_names([(n, everything[n]) for n in together])]
        if sorted(covered) != sorted(whole):
            return [list(everything)]
        return [*_by_size(alone, everything), *([together] if together else [])]

    def _converted_alone(self, name: str, tensor: Tensor, whole: Mapping[str, Any]) -> set[str] | None:
        """Names in the checkpoint that one tensor becomes; None when it has to be converted with others."""
        try:
            found = _described(self._model.under_checkpoint_names([(name, tensor)]))
        except Exception:  # conversions are not made for a part of what they need, and say so in many ways
            return None
        return set(found) if all(whole.get(each) == kind for each, kind in found.items()) else None


def _by_size(names: Mapping[str, Any], everything: Mapping[str, Tensor]) -> Iterator[list[str]]:
    portion: list[str] = []
    elements = 0
    for name in names:
        portion.append(name)
        elements += everything[name].numel()
        if elements >= GATHER_ELEMENTS:
            yield portion
            portion, elements = [], 0
    if portion:
        yield portion


def _meta(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Its whole shape, also where DeepSpeed has left a part of it on this rank."""
    return torch.empty(tuple(getattr(tensor, "ds_shape", tensor.shape)), dtype=dtype, device="meta")


def _described(tensors: Named) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors}


def _copy(source: Tensor, target: Tensor) -> None:
    if source.device != target.device:  # cast where it lies: a copy to the host that has to cast as well is not ordered
        source = source.to(target.dtype).contiguous()
    target.copy_(source, non_blocking=True)
