"""Which tensor of one model stands where which of another does: all that a model computes with, prepacked copies included.

Two models of one architecture are walked side by side: parameters and buffers of every module, and what modules keep besides
in attributes, in objects of vLLM and in closures, where its kernels for CPUs keep prepacked weights. A tensor that both
reach by one path is a pair. Whatever differs otherwise is a reason not to exchange anything.
"""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from services.errors import RatchetError

WALKED = ("vllm.model_executor.", "vllm.v1.attention.", "vllm._custom_ops")
"""Packages whose objects are looked into. Those of vllm.config belong to the engine, not to a model."""
NOT_WEIGHTS = frozenset(
    {
        "kv_cache",  # of what is sampled
        "_do_torchao_reload",  # left behind by a reload, as are the next two
        "_original_do_torchao_reload",
        "_already_called_process_weights_after_loading",
    }
)
"""Attributes that may differ."""
HANDLES = frozenset({"CPUDNNLGEMMHandler"})
"""Classes whose tensor is the address of weights that a library has packed: exchanged, but not compared by value."""
SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


class CannotExchange(RatchetError):
    """The two models are not the same but for their weights."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors that stand at one place."""

    place: str
    running: Tensor
    prepared: Tensor
    is_handle: bool = False

    def exchange(self) -> None:
        """Exchange the memory of both; no byte moves. For weights in host memory."""
        with_prepared = self.prepared.data
        self.prepared.data = self.running.data
        self.running.data = with_prepared

    def copy(self) -> None:
        """Copy into the memory of the running model, whose address CUDA graphs know."""
        self.running.data.copy_(self.prepared.data, non_blocking=True)

    def is_equal(self) -> bool:
        """Whether both have the same bits."""
        one, other = self.running.data, self.prepared.data
        if self.is_handle or one.numel() == 0:
            return True
        if one.is_contiguous() and other.is_contiguous():  # bits, or a NaN would differ from itself
            one, other = one.view(-1).view(torch.uint8), other.view(-1).view(torch.uint8)
        return torch.equal(one, other)


def match(running: torch.nn.Module, prepared: torch.nn.Module) -> list[Pair]:
    """Every pair, each tensor once. Raises CannotExchange, naming the first place where the models differ."""
    walk = _Walk()
    modules, others = dict(running.named_modules()), dict(prepared.named_modules())
    if modules.keys() != others.keys():
        raise CannotExchange(f"modules differ: {sorted(modules.keys() ^ others.keys())[:3]}")
    for name, module in modules.items():  # all of these first: what else refers to one of them is no pair of its own
        walk.of_tensors(module, others[name], name or "model")
    for name, module in modules.items():
        walk.of_attributes(module, others[name], name or "model")
    return walk.pairs


class _Walk:
    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self._of_running: dict[int, Tensor] = {}  # id -> what it is paired with
        self._of_prepared: set[int] = set()
        self._seen: set[tuple[int, int]] = set()

    def of_tensors(self, module: torch.nn.Module, other: torch.nn.Module, place: str) -> None:
        """Pair the parameters and buffers of two modules."""
        if type(module) is not type(other):
            raise CannotExchange(f"{place} is {type(module).__name__} and {type(other).__name__}")
        self._seen.add((id(module), id(other)))
        for kind in ("_parameters", "_buffers"):
            self._visit(vars(module)[kind], vars(other)[kind], place, strict=True)

    def of_attributes(self, module: torch.nn.Module, other: torch.nn.Module, place: str) -> None:
        """Pair what two modules keep besides."""
        kept = vars(torch.nn.Module()).keys()
        for name, one, two in _both(vars(module), vars(other), place):
            if name not in kept:
                self._visit(one, two, f"{place}.{name}")

    def _visit(self, one: Any, two: Any, place: str, *, is_handle: bool = False, strict: bool = False) -> None:
        """strict: a tensor that was paired before has to have the same partner again: it is shared in both models."""
        if one is two:
            return
        if type(one) is not type(two):
            raise CannotExchange(f"{place} is {type(one).__name__} and {type(two).__name__}")
        if isinstance(one, SCALARS):
            if one != two:
                raise CannotExchange(f"{place} is {one!r} and {two!r}")
        elif isinstance(one, Tensor):
            self._pair(one, two, place, is_handle=is_handle, strict=strict)
        elif isinstance(one, torch.ScriptObject):
            raise CannotExchange(f"{place} is an object of C++")
        elif (id(one), id(two)) not in self._seen:
            self._seen.add((id(one), id(two)))
            for name, part, other in _parts(one, two, place):
                handle = type(one).__name__ in HANDLES
                self._visit(part, other, f"{place}.{name}", is_handle=handle, strict=strict)

    def _pair(self, one: Tensor, two: Tensor, place: str, *, is_handle: bool, strict: bool) -> None:
        if id(one) in self._of_running:
            if strict and self._of_running[id(one)] is not two:
                raise CannotExchange(f"{place} is shared in the running model alone")
            return
        if id(two) in self._of_prepared:
            raise CannotExchange(f"{place} is shared in the prepared model alone")
        if (one.shape, one.dtype, one.device, one.layout) != (two.shape, two.dtype, two.device, two.layout):
            raise CannotExchange(f"{place} is {_described(one)} and {_described(two)}")
        self._of_running[id(one)] = two
        self._of_prepared.add(id(two))
        self.pairs.append(Pair(place, one, two, is_handle))


def _parts(one: Any, two: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """What two objects of one type consist of, in pairs; nothing for what holds no weights."""
    if isinstance(one, dict):
        yield from _both(one, two, place)
    elif isinstance(one, list | tuple):
        if len(one) != len(two):
            raise CannotExchange(f"{place} has {len(one)} and {len(two)} members")
        yield from ((str(number), *pair) for number, pair in enumerate(zip(one, two, strict=True)))
    elif isinstance(one, partial):
        yield from (
            ("func", one.func, two.func),
            ("args", one.args, two.args),
            ("keywords", one.keywords, two.keywords),
        )
    elif isinstance(one, types.FunctionType):
        if one.__code__ is not two.__code__:
            raise CannotExchange(f"{place} is {one.__qualname__} and {two.__qualname__}, other code")
        yield "default", one.__defaults__, two.__defaults__
        for name, cell, other in zip(
            one.__code__.co_freevars, one.__closure__ or (), two.__closure__ or (), strict=True
        ):
            yield name, cell.cell_contents, other.cell_contents
    elif isinstance(one, types.MethodType):
        yield "self", one.__self__, two.__self__
    elif type(one).__module__.startswith(WALKED) and not isinstance(one, torch.nn.Module):
        yield from _both(_state(one), _state(two), place)


def _state(one: Any) -> dict[str, Any]:
    slots = [name for each in type(one).__mro__ for name in getattr(each, "__slots__", ()) if hasattr(one, name)]
    return getattr(one, "__dict__", {}) | {name: getattr(one, name) for name in slots}


def _both(one: dict[Any, Any], two: dict[Any, Any], place: str) -> Iterator[tuple[str, Any, Any]]:
    """The members of two dictionaries of one kind. What sampling adds to one of them can be left out if it holds no tensor."""
    for name in one.keys() ^ two.keys():
        if name not in NOT_WEIGHTS and not isinstance(one.get(name, two.get(name)), SCALARS):
            raise CannotExchange(f"{place}.{name} is in one model alone")
    yield from ((str(name), one[name], two[name]) for name in one if name in two and name not in NOT_WEIGHTS)


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
