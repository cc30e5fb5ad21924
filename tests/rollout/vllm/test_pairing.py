"""Which tensors of two models stand at one place, on modules that keep weights in every way that vLLM's do."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rollout.vllm.pairing import CannotExchange, match


class CPUDNNLGEMMHandler:
    """As vLLM's: a tensor that holds an address."""

    __module__ = "vllm._custom_ops"

    def __init__(self, address: int) -> None:
        self.handler_tensor = torch.tensor(address)
        self.n = 4


class Kernel:
    __module__ = "vllm.model_executor.layers.experts"

    def __init__(self, bias: Tensor, value: float) -> None:
        self.bias = bias
        self.own = torch.full((3,), value)


class Layer(nn.Module):
    def __init__(self, value: float, address: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 2), value))
        self.register_buffer("scale", torch.full((1,), value), persistent=False)
        packed, handler = torch.full((4,), value), CPUDNNLGEMMHandler(address)
        self.cpu_linear: Callable[[], Any] = lambda: (packed, handler)
        self.kernel = Kernel(self.weight, value)
        self.kv_cache = torch.zeros(address)
        self.plain: Any = [torch.full((2,), value)]


class Model(nn.Module):
    def __init__(self, value: float, address: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(value, address), Layer(value + 1, address)])
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight = self.layers[0].weight  # type: ignore[assignment]  # tied


def held(model: Any) -> list[float]:
    """Everything that it computes with."""
    values: list[float] = []
    for layer in model.layers:
        packed, handler = layer.cpu_linear()
        tensors = [layer.weight, layer.scale, packed, handler.handler_tensor, layer.kernel.bias, layer.kernel.own]
        values += [float(tensor.detach().flatten()[0]) for tensor in [*tensors, layer.plain[0]]]
    return [*values, float(model.head.weight.detach()[0, 0])]


def test_an_exchange_moves_everything_that_a_model_computes_with_and_keeps_its_objects() -> None:
    running, prepared = Model(1.0, 10), Model(5.0, 50)
    objects = [id(tensor) for tensor in running.parameters()]
    before, wanted = held(running), held(prepared)
    pairs = match(running, prepared)
    for pair in pairs:
        pair.exchange()
    assert (held(running), held(prepared)) == (wanted, before)
    assert [id(tensor) for tensor in running.parameters()] == objects
    assert running.head.weight is running.layers[0].weight
    assert len(running.layers[0].kv_cache) == 10  # type: ignore[arg-type]
    for pair in match(running, prepared):
        pair.exchange()
    assert held(running) == before


def test_a_copy_leaves_the_running_model_where_it_is_in_memory() -> None:
    running, prepared = Model(1.0), Model(5.0)
    places = [parameter.data_ptr() for parameter in running.parameters()]
    for pair in match(running, prepared):
        pair.copy()
    assert held(running) == held(prepared)
    assert [parameter.data_ptr() for parameter in running.parameters()] == places
    assert not {parameter.data_ptr() for parameter in prepared.parameters()} & set(places)


def test_equal_bits_are_equal_not_a_number_included_and_addresses_are_not_compared() -> None:
    running, prepared = Model(1.0, 10), Model(1.0, 10)
    for model in (running, prepared):
        model.layers[0].plain[0][1] = float("nan")  # type: ignore[index]
        model.layers[0].cpu_linear()[1].handler_tensor.fill_(id(model))  # type: ignore[operator]
    assert all(pair.is_equal() for pair in match(running, prepared))
    prepared.layers[1].plain[0][1] = 1.5  # type: ignore[index]
    assert [pair.place for pair in match(running, prepared) if not pair.is_equal()] == ["layers.1.plain.0"]


def differ(**attributes: Any) -> Callable[[Model], None]:
    return lambda model: vars(model.layers[1]).update(attributes)


def other_code() -> tuple[Tensor, CPUDNNLGEMMHandler]:
    return torch.zeros(4), CPUDNNLGEMMHandler(1)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (differ(scalar=1), None),  # what sampling adds
        (differ(lazily=torch.zeros(1)), r"layers\.1\.lazily is in one model alone"),
        (differ(plain=[]), r"layers\.1\.plain has 1 and 0 members"),
        (
            differ(plain=[torch.zeros(3)]),
            r"layers\.1\.plain\.0 is torch.float32 \(2,\) on cpu and torch.float32 \(3,\)",
        ),
        (differ(plain=[1.0]), r"layers\.1\.plain\.0 is Tensor and float"),
        (differ(cpu_linear=other_code), r"layers\.1\.cpu_linear is .*other code"),
        (differ(kernel=SimpleNamespace()), r"layers\.1\.kernel is Kernel and SimpleNamespace"),
        (lambda model: model.add_module("extra", nn.Linear(1, 1)), r"modules differ: \['extra'\]"),
        (
            lambda model: setattr(model.head, "weight", nn.Parameter(torch.zeros(2, 2))),
            r"head\.weight is shared in the running model alone",
        ),
        (
            lambda model: setattr(model.layers[1], "weight", model.layers[0].weight),
            r"layers\.1\.weight is shared in the prepared model alone",
        ),
    ],
)
def test_whatever_differs_but_in_weights_is_a_reason_to_exchange_nothing(
    change: Callable[[Model], None], place: str | None
) -> None:
    running, prepared = Model(1.0), Model(5.0)
    change(prepared)
    if place is None:
        match(running, prepared)
        return
    with pytest.raises(CannotExchange, match=place):
        match(running, prepared)


def test_a_number_that_differs_may_come_from_the_weights() -> None:
    running, prepared = Model(1.0), Model(5.0)
    for number, model in enumerate((running, prepared)):
        vars(model.layers[0])["k_scale_float"] = float(number)
    with pytest.raises(CannotExchange, match=r"layers\.0\.k_scale_float is 0\.0 and 1\.0"):
        match(running, prepared)
